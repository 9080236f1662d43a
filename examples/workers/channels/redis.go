package channels

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/rueidis"
)

const (
	// commandTimeout bounds one command, so that a Redis that hangs holds no worker.
	commandTimeout = 5 * time.Second
	// logEntriesMax is about how many entries Redis keeps of one log.
	logEntriesMax = 1000
	// logLifetime is how long Redis keeps a log after its last entry.
	logLifetime = 24 * time.Hour
)

// Redis does a worker's work with plain commands.
type Redis struct {
	client rueidis.Client
	prefix string
}

// Dial connects to redis://[USER:PASSWORD@]HOST:PORT[/DB], rediss:// or unix:///PATH. The prefix
// goes before every channel's name, as the gateway's channel-prefix does. Errors do not repeat the
// address, which may hold a password. The caller closes what it gets.
func Dial(address, prefix string) (*Redis, error) {
	option, err := rueidis.ParseURL(address)
	if err != nil {
		// The error quotes what it could not read.
		return nil, errors.New("redis: the address must be redis://[USER:PASSWORD@]HOST:PORT[/DB], rediss:// or unix:///PATH, with special characters as %XX")
	}
	option.DisableCache = true // a worker reads with MGET, see the package ml
	client, err := rueidis.NewClient(option)
	if err != nil {
		return nil, fmt.Errorf("redis: %w; is it running, and is this its address?", err)
	}
	return &Redis{client: client, prefix: prefix}, nil
}

// Close ends the connections.
func (r *Redis) Close() { r.client.Close() }

// Publish is PUBLISH.
func (r *Redis) Publish(ctx context.Context, channel string, event any) error {
	data, err := json.Marshal(event)
	if err != nil {
		return fmt.Errorf("event on %s: %w", channel, err)
	}
	b := r.client.B()
	return r.do(ctx, channel, b.Publish().Channel(r.prefix+channel).Message(string(data)).Build())
}

// Append is XADD with MAXLEN ~ 1000, and EXPIRE a day later: a log of what ended long ago goes by
// itself.
func (r *Redis) Append(ctx context.Context, channel string, event any) error {
	data, err := json.Marshal(event)
	if err != nil {
		return fmt.Errorf("event on %s: %w", channel, err)
	}
	b := r.client.B()
	key := r.prefix + channel
	return r.do(ctx, channel,
		b.Xadd().Key(key).Maxlen().Almost().Threshold(strconv.Itoa(logEntriesMax)).Id("*").
			FieldValue().FieldValue("data", string(data)).Build(),
		b.Expire().Key(key).Seconds(int64(logLifetime.Seconds())).Build())
}

// Set is SET.
func (r *Redis) Set(ctx context.Context, channel string, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("value of %s: %w", channel, err)
	}
	b := r.client.B()
	return r.do(ctx, channel, b.Set().Key(r.prefix+channel).Value(string(data)).Build())
}

func (r *Redis) do(ctx context.Context, channel string, commands ...rueidis.Completed) error {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	for _, result := range r.client.DoMulti(ctx, commands...) {
		if err := result.Error(); err != nil {
			return fmt.Errorf("publish on %s: %w", channel, err)
		}
	}
	return nil
}

// Get is MGET, on a Cluster one a slot.
func (r *Redis) Get(ctx context.Context, channels ...string) ([][]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	keys := make([]string, len(channels))
	for place, channel := range channels {
		keys[place] = r.prefix + channel
	}
	found, err := rueidis.MGet(r.client, ctx, keys)
	if err != nil {
		return nil, fmt.Errorf("read %d states: %w", len(channels), err)
	}
	values := make([][]byte, len(channels))
	for place, key := range keys {
		message := found[key]
		value, err := message.AsBytes()
		switch {
		case rueidis.IsRedisNil(err):
		case err != nil:
			return nil, fmt.Errorf("read the state %s: %w", channels[place], err)
		default:
			values[place] = value
		}
	}
	return values, nil
}
