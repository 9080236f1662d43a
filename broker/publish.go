package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/redis/rueidis"
)

const (
	// publishQueueMax is how many calls of Publish may wait for one node; more wait to be let in.
	publishQueueMax = 1024
	// publishBatchMax is how many commands are sent in one go, give or take one call's.
	publishBatchMax = 1024
	// publishTimeout bounds a Publish whose context has no deadline, and each answer of Redis.
	publishTimeout = 2 * time.Second
	// connectPoll is how often a Publish looks whether the first connection stands.
	connectPoll = 5 * time.Millisecond
	// publishTries is how often sharded messages are sent after their slot when it moves.
	publishTries = 4
)

// Who may decide on a request: the caller gives it up, or the publisher takes it, never both.
const (
	requestWaiting uint32 = iota
	requestTaken
	requestAbandoned
)

// publishRequest is the part of one Publish that goes to one node, all or nothing.
type publishRequest struct {
	messages  []Message
	positions []Position // of Log messages, set before done is answered without an error
	state     atomic.Uint32
	done      chan error // buffered by one, so that the publisher never waits
}

// Publish implements [Broker].
func (r *Redis) Publish(ctx context.Context, messages []Message) ([]Position, error) {
	if len(messages) == 0 {
		return nil, nil
	}
	if err := checkMessages(messages); err != nil {
		return nil, fmt.Errorf("publish: %w", err)
	}
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, publishTimeout)
		defer cancel()
	}
	positions, err := r.publish(ctx, messages)
	if err != nil {
		r.publishErrors.Add(uint64(len(messages)))
		return nil, fmt.Errorf("publish: %w", err)
	}
	r.published.Add(uint64(len(messages)))
	return positions, nil
}

// checkMessages returns what is wrong with messages that nobody can publish.
func checkMessages(messages []Message) error {
	for index := range messages {
		message := &messages[index]
		if message.Channel == "" || message.Kind == Pattern || message.Kind >= kindCount || message.MaxLen < 0 || message.Keep < 0 || message.Keep > 0 && message.Kind != Log {
			return fmt.Errorf("message %d of %d: a message goes to a channel with a name that is no pattern", index+1, len(messages))
		}
	}
	return nil
}

func hasLog(messages []Message) bool {
	return slices.ContainsFunc(messages, func(message Message) bool { return message.Kind == Log })
}

// slotGroup is the messages of one slot of a Cluster, and their places in the call.
type slotGroup struct {
	slot     int
	messages []Message
	places   []int
}

// publish sends what belongs to one slot or to one node together. Order is kept: each group
// is answered before the next is sent, and the groups come in the order of their first message.
func (r *Redis) publish(ctx context.Context, messages []Message) ([]Position, error) {
	r.mutex.Lock()
	cluster := r.cluster
	r.mutex.Unlock()
	if !cluster {
		return r.publishGroup(ctx, messages, noSlot)
	}
	var positions []Position
	if hasLog(messages) {
		positions = make([]Position, len(messages))
	}
	for _, group := range r.groupBySlot(messages) {
		given, err := r.publishGroup(ctx, group.messages, group.slot)
		if err != nil {
			return nil, err
		}
		for index, position := range given {
			positions[group.places[index]] = position
		}
	}
	return positions, nil
}

func (r *Redis) groupBySlot(messages []Message) []*slotGroup {
	var groups []*slotGroup
	bySlot := make(map[int]*slotGroup)
	for place, message := range messages {
		slot := noSlot
		if message.Kind.bySlot() {
			slot = int(slotOf(r.prefix + message.Channel))
		}
		group := bySlot[slot]
		if group == nil {
			group = &slotGroup{slot: slot}
			bySlot[slot] = group
			groups = append(groups, group)
		}
		group.messages = append(group.messages, message)
		group.places = append(group.places, place)
	}
	return groups
}

// noSlot stands for messages that any node may publish.
const noSlot = -1

// publishGroup publishes messages of one node. A reply that says that the slot is elsewhere
// proves that nothing was published, so it is sent again to whom the slot has gone.
func (r *Redis) publishGroup(ctx context.Context, messages []Message, slot int) ([]Position, error) {
	var err error
	for range publishTries {
		session, fault := r.awaitPublisher(ctx, slot)
		if fault != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, fault)
		}
		var positions []Position
		positions, err = session.publish(ctx, messages)
		if err == nil {
			return positions, nil
		}
		if class, _, isReply := diagnoseReply(err); !isReply || class != causeTopology || slot == noSlot {
			break
		}
		r.askTopology()
		if !pause(ctx, jitter(movedRetry), nil) {
			break
		}
	}
	return nil, explainReply(err)
}

// awaitPublisher returns the session that publishes for a slot. It waits for one only while the
// first attempt to connect goes on: a broker that was just started is not away.
func (r *Redis) awaitPublisher(ctx context.Context, slot int) (*session, error) {
	for {
		session, fault := r.publisher(slot)
		if fault == nil || !errors.Is(fault, errNotConnected) {
			return session, fault
		}
		if !pause(ctx, connectPoll, nil) {
			return nil, fault
		}
	}
}

// publisher returns the session that publishes for a slot, or why there is none.
func (r *Redis) publisher(slot int) (*session, error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	number := r.plain
	if slot != noSlot {
		number = noNode
		if r.slots != nil {
			number = r.slots[slot]
		}
	}
	switch {
	case r.closed:
		return nil, ErrClosed
	case !r.started:
		return nil, errNotStarted
	case number == noNode && r.fault != "":
		return nil, errors.New(r.fault)
	case number == noNode && r.slots != nil:
		return nil, errNoOwner
	case number == noNode:
		return nil, errNotConnected
	}
	n := r.nodes[number]
	switch {
	case n.session != nil:
		return n.session, nil
	case n.fault == errNotConnected.Error():
		return nil, errNotConnected
	}
	return nil, errors.New(n.address + ": " + n.fault)
}

// explainReply wraps an error of Redis or the network in ours.
func explainReply(err error) error {
	if err == nil {
		return nil
	}
	class, advice, isReply := diagnoseReply(err)
	switch {
	case errors.Is(err, ErrUnavailable):
		return err
	case !isReply:
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	case class == causeTopology, class == causeLoading, class == causeReplica:
		return fmt.Errorf("%w: %s; %s", ErrUnavailable, plainWords(err), advice)
	}
	return fmt.Errorf("%w: %s; %s", ErrRefused, plainWords(err), advice)
}

// publish hands messages to the session's publisher and waits for the answer.
func (s *session) publish(ctx context.Context, messages []Message) ([]Position, error) {
	request := &publishRequest{messages: messages, done: make(chan error, 1)}
	err := s.await(ctx, request)
	if err != nil {
		return nil, err
	}
	return request.positions, nil
}

func (s *session) await(ctx context.Context, request *publishRequest) error {
	select {
	case s.requests <- request:
	case <-s.ctx.Done():
		return context.Cause(s.ctx)
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-request.done:
		return err
	case <-ctx.Done():
		request.state.CompareAndSwap(requestWaiting, requestAbandoned)
		return ctx.Err()
	case <-s.ctx.Done():
	}
	if request.state.CompareAndSwap(requestWaiting, requestAbandoned) {
		return context.Cause(s.ctx)
	}
	select {
	case err := <-request.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// publishLoop sends the requests, many at once: while one batch is on its way the next gathers.
func (s *session) publishLoop() {
	var taken []*publishRequest
	for {
		taken = taken[:0]
		commands := 0
		select {
		case request := <-s.requests:
			taken, commands = take(taken, request, commands)
		case <-s.ctx.Done():
			return
		}
	gather:
		for commands < publishBatchMax {
			select {
			case request := <-s.requests:
				taken, commands = take(taken, request, commands)
			default:
				break gather
			}
		}
		if len(taken) > 0 {
			s.sendPublished(taken, commands)
		}
	}
}

// take accepts a request unless its caller has given up.
func take(taken []*publishRequest, request *publishRequest, commands int) ([]*publishRequest, int) {
	if !request.state.CompareAndSwap(requestWaiting, requestTaken) {
		return taken, commands
	}
	return append(taken, request), commands + commandCount(request.messages)
}

// commandCount is how many commands messages take, MULTI and EXEC included where it is more than one.
func commandCount(messages []Message) int {
	count := len(messages)
	for index := range messages {
		if messages[index].Keep > 0 {
			count++
		}
	}
	if count > 1 {
		count += 2
	}
	return count
}

// sendPublished sends a batch and answers each of its requests.
func (s *session) sendPublished(taken []*publishRequest, count int) {
	commands := make([]rueidis.Completed, 0, count)
	b := s.client.B()
	for _, request := range taken {
		several := commandCount(request.messages) > 1
		if several {
			commands = append(commands, b.Multi().Build())
		}
		for index := range request.messages {
			message := &request.messages[index]
			commands = append(commands, s.publishCommand(b, message))
			if message.Keep > 0 {
				commands = append(commands, b.Expire().Key(s.node.broker.prefix+message.Channel).Seconds(message.keepSeconds()).Build())
			}
		}
		if several {
			commands = append(commands, b.Exec().Build())
		}
	}
	ctx, cancel := context.WithTimeout(s.ctx, publishTimeout)
	defer cancel()
	results := s.client.DoMulti(ctx, commands...)
	for _, request := range taken {
		length := commandCount(request.messages)
		var err error
		request.positions, err = outcome(results[:length], request.messages)
		if errors.Is(err, context.Canceled) && s.ctx.Err() != nil {
			err = context.Cause(s.ctx)
		}
		request.done <- err
		results = results[length:]
	}
}

func (s *session) publishCommand(b rueidis.Builder, message *Message) rueidis.Completed {
	name := s.node.broker.prefix + message.Channel
	payload := unsafe.String(unsafe.SliceData(message.Payload), len(message.Payload))
	switch message.Kind {
	case Sharded:
		return b.Spublish().Channel(name).Message(payload).Build()
	case State:
		return b.Set().Key(name).Value(payload).Build()
	case Log:
		if message.MaxLen == 0 {
			return b.Xadd().Key(name).Id("*").FieldValue().FieldValue(payloadField, payload).Build()
		}
		bound := strconv.Itoa(message.MaxLen)
		return b.Xadd().Key(name).Maxlen().Almost().Threshold(bound).Id("*").FieldValue().FieldValue(payloadField, payload).Build()
	default:
		return b.Publish().Channel(name).Message(payload).Build()
	}
}

// outcome sums up the replies to one request: one command, or MULTI, commands, EXEC.
func outcome(results []rueidis.RedisResult, messages []Message) ([]Position, error) {
	last := len(results) - 1
	if last == 0 {
		reply, err := results[0].ToMessage()
		if err != nil {
			return nil, err
		}
		return positionsOf([]rueidis.RedisMessage{reply}, messages)
	}
	// Where Redis forbids MULTI it carries the messages out one by one; then they decide.
	multi, exec := results[0].Error(), results[last].Error()
	var replies []rueidis.RedisMessage
	for _, result := range results[1:last] {
		reply, err := result.ToMessage()
		if err != nil {
			return nil, err
		}
		replies = append(replies, reply)
	}
	if _, refused := redisReply(multi); !refused {
		if exec != nil {
			return nil, exec
		}
		var err error
		if replies, err = results[last].ToArray(); err != nil {
			return nil, err
		}
	}
	for _, reply := range replies {
		if err := reply.Error(); err != nil {
			return nil, err
		}
	}
	return positionsOf(replies, messages)
}

// positionsOf reads where Log messages now stand from the replies to XADD.
func positionsOf(replies []rueidis.RedisMessage, messages []Message) ([]Position, error) {
	if !hasLog(messages) {
		return nil, nil
	}
	positions := make([]Position, len(messages))
	kept := 0 // replies to EXPIRE so far
	for index := range messages {
		if messages[index].Kind != Log {
			continue
		}
		text, err := replies[index+kept].ToString()
		position, ok := ParsePosition(text)
		if err != nil || !ok {
			return nil, fmt.Errorf("%w: what XADD answered is no position", ErrUnavailable)
		}
		positions[index] = position
		if messages[index].Keep > 0 {
			kept++
		}
	}
	return positions, nil
}
