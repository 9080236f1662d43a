package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/millrace/millrace/internal/redistest"
)

// store is the publisher's way to Redis. Safe for use by many goroutines.
type store interface {
	// write writes in order and says for each what Redis answered; an error is a doubt.
	write(writes []write) []error
	// keepsOrder reports whether writes of one key in one go stay in order, come what may.
	keepsOrder() bool
	// client is where a key can be read.
	client() rueidis.Client
	close()
}

const (
	// patient is how long the publisher waits for a Redis that is only stopped for a while.
	patient = 2 * time.Minute
	// hasty is how long it waits where another Redis may have taken over.
	hasty = time.Second
	// publisherName tells the publisher's connections from the gateways'.
	publisherName = "audit"
)

func option(address string, patience time.Duration) rueidis.ClientOption {
	return rueidis.ClientOption{
		InitAddress: []string{address}, ClientName: publisherName, ForceSingleClient: true, DisableRetry: true,
		DisableCache: true, ConnWriteTimeout: patience, PipelineMultiplex: -1,
		Dialer: net.Dialer{Timeout: hasty, KeepAlive: patience},
	}
}

// plainStore is one Redis, which answers in the end.
type plainStore struct {
	redis rueidis.Client
	// gate is held for reading by who writes: who holds it for writing can start Redis anew without
	// any doubt about what was written.
	gate *sync.RWMutex
}

func newPlainStore(address string, gate *sync.RWMutex) (store, error) {
	client, err := rueidis.NewClient(option(address, patient))
	if err != nil {
		return nil, fmt.Errorf("connect the publisher: %w", err)
	}
	return &plainStore{redis: client, gate: gate}, nil
}

func (s *plainStore) write(writes []write) []error {
	s.gate.RLock()
	defer s.gate.RUnlock()
	return writeTo(s.redis, writes, patient)
}

func (s *plainStore) keepsOrder() bool       { return true }
func (s *plainStore) client() rueidis.Client { return s.redis }
func (s *plainStore) close()                 { s.redis.Close() }

// writeTo writes by one client.
func writeTo(client rueidis.Client, writes []write, patience time.Duration) []error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	commands := make([]rueidis.Completed, len(writes))
	for index, one := range writes {
		commands[index] = one.command(client.B())
	}
	errs := make([]error, len(writes))
	for index, answer := range client.DoMulti(ctx, commands...) {
		errs[index] = answer.Error()
	}
	return errs
}

// sentinelStore follows the primary of a Sentinel group. Whom it once left it never writes to
// again.
type sentinelStore struct {
	group *redistest.Sentinel

	mutex   sync.Mutex
	address string
	redis   rueidis.Client // nil: to be looked for
}

func newSentinelStore(group *redistest.Sentinel) (store, error) {
	s := &sentinelStore{group: group}
	if s.current() == nil {
		return nil, errors.New("connect the publisher: the Sentinels know no primary that answers")
	}
	return s, nil
}

// current is a client of whom the Sentinels take for the primary, nil while there is none.
func (s *sentinelStore) current() rueidis.Client {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.redis != nil {
		return s.redis
	}
	address, err := s.group.PrimaryAddr()
	if err != nil {
		return nil
	}
	client, err := rueidis.NewClient(option(address, hasty))
	if err != nil {
		return nil
	}
	s.address, s.redis = address, client
	return client
}

func (s *sentinelStore) write(writes []write) []error {
	client := s.current()
	if client == nil {
		time.Sleep(publisherTick) // the publisher's pace: it tries again until there is a primary
		errs := make([]error, len(writes))
		for index := range errs {
			errs[index] = errors.New("no primary")
		}
		return errs
	}
	errs := writeTo(client, writes, hasty)
	if errors.Join(errs...) != nil {
		s.leave(client)
	}
	return errs
}

// leave lets go of a client that did not answer, or did not take a write.
func (s *sentinelStore) leave(client rueidis.Client) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.redis == client {
		s.redis = nil
		go client.Close() // it may wait for a server that is stopped
	}
}

func (s *sentinelStore) keepsOrder() bool       { return true }
func (s *sentinelStore) client() rueidis.Client { return s.current() }

func (s *sentinelStore) close() {
	if client := s.current(); client != nil {
		client.Close()
	}
}

// clusterStore writes keys wherever they are, and publishes on one node, always the same, so that
// events stay in order.
type clusterStore struct {
	keys   rueidis.Client
	events rueidis.Client
}

func newClusterStore(cluster *redistest.Cluster) (store, error) {
	events, err := rueidis.NewClient(option(cluster.Nodes[0].Addr, patient))
	if err != nil {
		return nil, fmt.Errorf("connect the publisher: %w", err)
	}
	all := option("", patient)
	all.ForceSingleClient, all.InitAddress = false, nil
	for _, node := range cluster.Nodes {
		all.InitAddress = append(all.InitAddress, node.Addr)
	}
	keys, err := rueidis.NewClient(all)
	if err != nil {
		events.Close()
		return nil, fmt.Errorf("connect the publisher: %w", err)
	}
	return &clusterStore{keys: keys, events: events}, nil
}

func (s *clusterStore) write(writes []write) []error {
	var toKeys, toEvents []write
	for _, one := range writes {
		if one.line.mode == modeEvents {
			toEvents = append(toEvents, one)
		} else {
			toKeys = append(toKeys, one)
		}
	}
	keys, events := writeTo(s.keys, toKeys, patient), writeTo(s.events, toEvents, patient)
	errs := make([]error, 0, len(writes))
	for _, one := range writes {
		from := &keys
		if one.line.mode == modeEvents {
			from = &events
		}
		errs = append(errs, (*from)[0])
		*from = (*from)[1:]
	}
	return errs
}

func (s *clusterStore) keepsOrder() bool       { return false }
func (s *clusterStore) client() rueidis.Client { return s.keys }

func (s *clusterStore) close() {
	s.keys.Close()
	s.events.Close()
}

// held reads the numbers that a log holds.
func held(client rueidis.Client, l *line) ([]uint32, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	entries, err := client.Do(ctx, client.B().Xrange().Key(l.name).Start("-").End("+").Build()).AsXRange()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", l.name, err)
	}
	numbers := make([]uint32, 0, len(entries))
	for _, entry := range entries {
		var p payload
		if err := json.Unmarshal([]byte(entry.FieldValues["data"]), &p); err != nil {
			return nil, fmt.Errorf("read %s: entry %s: %w", l.name, strconv.Quote(entry.ID), err)
		}
		numbers = append(numbers, p.Number)
	}
	return numbers, nil
}
