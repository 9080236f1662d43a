package broker

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

const (
	redisPortDefault    = "6379"
	sentinelPortDefault = "26379"
)

// target is where and how Redis is reached, as the URL said it. It holds passwords: nothing of
// it but the addresses may reach a log line or an error.
type target struct {
	addresses []string // HOST:PORT, or the path of a unix socket
	master    string   // the name that Sentinels know; empty without Sentinels
	username  string
	password  string
	// For the Sentinels themselves, which have users of their own.
	sentinelUsername string
	sentinelPassword string
	database         int // pub/sub ignores it; commands on keys do not
	tls              bool
}

// parseURL reads a Redis URL: redis://[USER:PASSWORD@]HOST[:PORT][/DB], rediss:// for TLS, a
// comma list of them for a Cluster, redis+sentinel://HOST:PORT[,HOST:PORT]/MASTER (and
// rediss+sentinel://) with the queries db, sentinel-user and sentinel-password, and
// unix:///PATH[?db=N]. Its errors never quote the URL, which may hold a password.
func parseURL(raw string) (target, error) {
	pieces := strings.Split(strings.TrimSpace(raw), ",")
	scheme, _, found := strings.Cut(pieces[0], "://")
	if !found {
		return target{}, errors.New("redis URL: must begin with redis://, rediss://, redis+sentinel://, rediss+sentinel:// or unix://")
	}
	var parsed target
	port := redisPortDefault
	switch scheme {
	case "redis":
	case "rediss":
		parsed.tls = true
	case "redis+sentinel":
		port = sentinelPortDefault
	case "rediss+sentinel":
		port, parsed.tls = sentinelPortDefault, true
	case "unix":
		port = ""
	default:
		return target{}, errors.New("redis URL: unknown scheme; use redis://, rediss://, redis+sentinel://, rediss+sentinel:// or unix://")
	}
	var paths []string
	for index, piece := range pieces {
		if index > 0 && parsed.username == "" && parsed.password == "" && strings.Contains(piece, "@") {
			// More likely than a user in the second place only is a comma in a password, and
			// then what stands before it is no host but half of that password.
			return target{}, errors.New("redis URL: user and password belong to the first address; a comma in them is written %2C")
		}
		path, err := parsed.addPiece(piece, scheme, port)
		if err != nil {
			return target{}, fmt.Errorf("redis URL, address %d of %d: %w", index+1, len(pieces), err)
		}
		if path != "" {
			paths = append(paths, path)
		}
	}
	return parsed, parsed.setPath(scheme, paths)
}

// addPiece reads one element of the comma list and returns the path in it.
func (t *target) addPiece(piece, scheme, portDefault string) (path string, err error) {
	if !strings.Contains(piece, "://") {
		piece = scheme + "://" + piece
	}
	parsed, err := url.Parse(piece)
	if err != nil {
		// The error of url.Parse quotes its input, password and all.
		return "", errors.New("not a URL; write special characters in user and password (, / @ : # ? %) as %XX")
	}
	if parsed.Scheme != scheme {
		return "", errors.New("all addresses must have the same scheme")
	}
	if parsed.Fragment != "" {
		return "", errors.New("has a fragment; write special characters in user and password (, / @ : # ? %) as %XX")
	}
	if err := t.addUser(parsed.User); err != nil {
		return "", err
	}
	if err := t.addQuery(parsed.Query()); err != nil {
		return "", err
	}
	if scheme == "unix" {
		if parsed.Host != "" || parsed.Path == "" {
			return "", errors.New("a unix socket is written unix:///path/to/redis.sock")
		}
		t.addresses = append(t.addresses, parsed.Path)
		return "", nil
	}
	address, err := hostPort(parsed.Host, portDefault)
	if err != nil {
		return "", err
	}
	t.addresses = append(t.addresses, address)
	return strings.Trim(parsed.Path, "/"), nil
}

func (t *target) addUser(user *url.Userinfo) error {
	if user == nil {
		return nil
	}
	name := user.Username()
	password, _ := user.Password()
	known := t.username != "" || t.password != ""
	if known && (name != t.username || password != t.password) {
		return errors.New("another user or password than before; all nodes must share them")
	}
	t.username, t.password = name, password
	return nil
}

func (t *target) addQuery(query url.Values) error {
	for key, values := range query {
		switch key {
		case "db":
			if err := t.setDatabase(values[0]); err != nil {
				return err
			}
		case "sentinel-user":
			t.sentinelUsername = values[0]
		case "sentinel-password":
			t.sentinelPassword = values[0]
		default:
			return errors.New("unknown query; known are db, sentinel-user and sentinel-password")
		}
	}
	return nil
}

func (t *target) setDatabase(text string) error {
	number, err := strconv.Atoi(text)
	if err != nil || number < 0 {
		return errors.New("the database must be a number from 0 on")
	}
	t.database = number
	return nil
}

// setPath gives the path its meaning: the name of the master, or the number of the database.
func (t *target) setPath(scheme string, paths []string) error {
	if strings.HasSuffix(scheme, "+sentinel") {
		if len(paths) != 1 || strings.Contains(paths[0], "/") {
			return errors.New("redis URL: name the master once, as in redis+sentinel://HOST:PORT,HOST:PORT/MASTER")
		}
		t.master = paths[0]
		return nil
	}
	for _, path := range paths {
		if err := t.setDatabase(path); err != nil {
			return fmt.Errorf("redis URL: after the address: %w", err)
		}
	}
	if len(t.addresses) > 1 && t.database != 0 {
		return errors.New("redis URL: a Cluster has only database 0")
	}
	return nil
}

func hostPort(host, portDefault string) (string, error) {
	if host == "" {
		return "", errors.New("the host is missing")
	}
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		name, port = strings.Trim(host, "[]"), portDefault
	}
	if port == "" {
		port = portDefault
	}
	number, err := strconv.Atoi(port)
	if err != nil || number < 1 || number > 65535 {
		return "", errors.New("the port must be a number from 1 to 65535")
	}
	if name == "" {
		return "", errors.New("the host is missing")
	}
	return net.JoinHostPort(name, port), nil
}
