package settings

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/millrace/millrace/broker"
)

// RedisURL says which Redis to use. It may hold passwords: print only its String.
type RedisURL string

// Expected says what a RedisURL looks like.
func (RedisURL) Expected() string {
	return "redis://HOST:PORT, rediss://HOST:PORT, a comma list of them, or redis+sentinel://HOST:PORT/MASTER, such as redis://127.0.0.1:6379"
}

// UnmarshalText checks the form. What is wrong is named by its place in the list of addresses and
// never by its text, which may hold a password.
func (r *RedisURL) UnmarshalText(text []byte) error {
	first, _, list := strings.Cut(string(text), ",")
	if list && !strings.Contains(first, "@") && strings.Contains(string(text), "@") {
		return errors.New("a later address has a user, but the first has none; write a , in a password as %2C")
	}
	// The broker knows its own URLs; what is made here is not connected.
	redis, err := broker.NewRedis(broker.RedisOptions{URL: string(text), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return fmt.Errorf("%w; expected %s", err, r.Expected())
	}
	*r = RedisURL(text)
	return redis.Close()
}

// String gives the addresses with every password replaced, for logs and printed configurations.
func (r RedisURL) String() string {
	parts := strings.Split(string(r), ",")
	for position, part := range parts {
		parts[position] = redactUser(part)
	}
	return strings.Join(parts, ",")
}

// GoString never gives a password away.
func (r RedisURL) GoString() string { return fmt.Sprintf("%q", r.String()) }

// MarshalText never gives a password away.
func (r RedisURL) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// redactUser replaces what may be a password, of the user and in the query. It looks for the last
// @ rather than parse, so that a text that is no URL is redacted too. A user without a password is
// replaced as well: some tools write a lone password like that.
func redactUser(text string) string {
	text = redactQuery(text)
	at := strings.LastIndexByte(text, '@')
	if at < 0 {
		return text
	}
	scheme, user := "", text[:at]
	if before, after, found := strings.Cut(user, "://"); found {
		scheme, user = before+"://", after
	}
	name, _, found := strings.Cut(user, ":")
	if !found {
		return scheme + "redacted" + text[at:]
	}
	return scheme + name + ":redacted" + text[at:]
}

// redactQuery replaces the value of every key that has to do with passwords.
func redactQuery(text string) string {
	address, query, found := strings.Cut(text, "?")
	if !found {
		return text
	}
	pairs := strings.Split(query, "&")
	for index, pair := range pairs {
		if key, _, _ := strings.Cut(pair, "="); strings.Contains(strings.ToLower(key), "pass") {
			pairs[index] = key + "=redacted"
		}
	}
	return address + "?" + strings.Join(pairs, "&")
}
