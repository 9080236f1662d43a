package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/proto"
)

// An operator's order reaches every gateway of the fleet by a log in Redis, which each of them
// follows: a log and no PUBLISH, so that a gateway whose connection was lost for a moment finds what
// was said meanwhile. Who may write to the key may give orders: Redis's own access control guards it.
// A gateway that starts begins at the log's end, since none of its streams is older than that. One that
// inherits streams keeps what comes until it serves them, and then does what its predecessor had not
// done when its loops came to a stand.
//
// An entry is one JSON object:
//
//	{"v":1,"from":"k3x9qpwm","do":"disconnect","user":"456"}
//
// do is disconnect or unsubscribe; of client, user and channel those are there that [order.check]
// wants. from is the process that was asked, and has done it already. An entry that is
// anything else is counted and otherwise ignored; so is one with a field more, which may narrow what
// the others say. Who adds a field raises v.
const (
	ordersChannel = "__millrace:control" // no client can name it: types that begin with __ are refused
	orderVersion  = 1
	// ordersKept is about how many Redis keeps for gateways that were cut off from it: a megabyte. The
	// key has no end of life, for to who follows it a log that is gone has a hole.
	ordersKept = 10_000
	// ordersWaitingMax is how many orders of other gateways may wait in this one.
	ordersWaitingMax = 4096
	// ordersAwaitMax is how long what else Redis tells waits for orders that came before it.
	ordersAwaitMax = time.Second
)

// What an order says is to be done.
const (
	orderDisconnect  = "disconnect"
	orderUnsubscribe = "unsubscribe"
)

// order is one order, as it stands in the log. Texts that are empty are not meant.
type order struct {
	Version int    `json:"v"`
	From    string `json:"from"`
	Do      string `json:"do"`
	Client  string `json:"client,omitempty"`
	User    string `json:"user,omitempty"`
	Channel string `json:"channel,omitempty"`

	channel, wildcard proto.Channel // Channel and its type's wildcard, once checked
}

// check says whether the order is whole: to disconnect a client, a user or those who hear a channel;
// to unsubscribe from a channel a client, a user or everybody.
func (o *order) check() error {
	if o.Channel != "" || o.Do == orderUnsubscribe {
		var err error
		if o.channel, err = proto.ParseChannel(o.Channel); err != nil {
			return err
		}
		if o.wildcard, err = proto.ParseChannel(o.channel.Type() + ":*"); err != nil {
			return err
		}
	}
	named := 0
	for _, one := range []string{o.Client, o.User, o.Channel} {
		if one != "" {
			named++
		}
	}
	switch {
	case o.Do != orderDisconnect && o.Do != orderUnsubscribe:
		return fmt.Errorf("%.20q is no order", o.Do)
	case o.Do == orderDisconnect && named != 1:
		return refuse(refuseBadRequest, "name one of client=, as connected told it, user= and channel=")
	case o.Do == orderUnsubscribe && o.Client != "" && o.User != "":
		return refuse(refuseBadRequest, "name client=, as connected told it, or user=, or neither for everybody")
	}
	return nil
}

// orderOutcome is what became of an order that another gateway gave.
type orderOutcome uint8

const (
	orderDone         orderOutcome = iota
	orderFailed                    // a loop did not answer in time
	orderMalformed                 // no order, or one that is not whole
	orderForeign                   // of a version that is not spoken here
	orderOverrun                   // ordersWaitingMax wait already
	orderMissed                    // the log has a hole, however many were in it
	orderOutcomeCount              // number of outcomes, not one of them
)

var orderOutcomes = [orderOutcomeCount]string{"done", "failed", "malformed", "foreign", "overrun", "missed"}

// loggedOrder is an entry of the log that waits for its turn, or, without an order, somebody who waits
// for those before it.
type loggedOrder struct {
	*order
	position broker.Position
	early    bool            // it came before this gateway served
	reached  chan<- struct{} // without an order: closed when its turn has come
}

// orders is what a gateway has to do with those of others.
type orders struct {
	from    string // this process; not the epoch, which a successor inherits
	waiting chan loggedOrder
	serving atomic.Bool   // there are streams to carry out orders on
	begin   chan struct{} // closed when serving becomes true
	recent  recentOrders
	counts  [orderOutcomeCount]atomic.Uint64

	// carrying is held for reading by who carries out an order, and for writing by a hand-over from
	// before its loops come to a stand until it is decided who serves.
	carrying  sync.RWMutex
	done      broker.Position // of the last entry that needs nothing more; written by obey alone
	inherited broker.Position // the predecessor's done; good once begin is closed
	moved     bool            // another process has the streams
}

func newOrders() *orders {
	return &orders{from: newEpoch(), waiting: make(chan loggedOrder, ordersWaitingMax), begin: make(chan struct{})}
}

// serve has orders carried out from now on, and those that wait, but for what a predecessor did up to
// the position inherited.
func (o *orders) serve(inherited broker.Position) {
	o.inherited = inherited
	o.serving.Store(true)
	close(o.begin)
}

// ordersLog is the log as the broker knows it.
var ordersLog = broker.Subscription{Channel: ordersChannel, Kind: broker.Log}

// listenForOrders follows the log. A gateway without Redis is alone.
func (g *Gateway) listenForOrders(from *heritage) {
	if g.options.Redis == "" {
		return
	}
	if from.token == nil {
		g.orders.serve(broker.Position{})
	}
	g.spawned.Go(g.obey)
	g.broker.Subscribe(ordersLog)
	g.source.Prefer(nil)
}

// preferOrders has the broker mend the log of orders before what the hub prefers.
func preferOrders(prefer func([]broker.Subscription)) func([]broker.Subscription) {
	return func(subs []broker.Subscription) { prefer(append([]broker.Subscription{ordersLog}, subs...)) }
}

// ordersCame takes what was added to the log, and returns when it is done. It runs on a goroutine of
// the broker, which has logs and states wait meanwhile.
func (g *Gateway) ordersCame(update broker.LogUpdate) {
	if update.Hole {
		g.orderFailed(orderMissed, fmt.Errorf("the log of orders has a hole: %v", update.Reason))
	}
	for _, entry := range update.Entries {
		said, outcome, err := readOrder(entry.Payload)
		switch {
		case err != nil:
			g.orderFailed(outcome, err)
		case !g.orders.wait(loggedOrder{order: said, position: entry.Position}):
			g.orderFailed(orderOverrun, errors.New("too many came at once"))
		}
	}
	g.awaitOrders()
}

// wait puts an order behind those that wait, and reports whether there was room. Before the gateway
// serves there always is: the oldest make it, which the predecessor has carried out.
func (o *orders) wait(said loggedOrder) bool {
	for {
		said.early = !o.serving.Load()
		select {
		case o.waiting <- said:
			return true
		default:
		}
		if !said.early {
			return false
		}
		select {
		case <-o.waiting:
		default: // it has begun to serve
		}
	}
}

// awaitOrders waits until what was said is done, if there is anybody yet to do it. What a gateway reads
// next that was cut off from Redis was written while somebody lost the right to hear it. Loops that do
// not answer are not waited for.
func (g *Gateway) awaitOrders() {
	reached := make(chan struct{})
	if !g.orders.serving.Load() || !g.orders.wait(loggedOrder{reached: reached}) {
		return
	}
	timer := time.NewTimer(ordersAwaitMax)
	defer timer.Stop()
	select {
	case <-reached:
	case <-timer.C:
	case <-g.lifetime.Done():
	}
}

// readOrder reads an entry of the log. With an error comes what to count it as.
func readOrder(payload []byte) (said *order, failure orderOutcome, err error) {
	var spoken struct {
		Version int `json:"v"`
	}
	if err := json.Unmarshal(payload, &spoken); err != nil {
		return nil, orderMalformed, err
	}
	if spoken.Version != orderVersion {
		return nil, orderForeign, fmt.Errorf("version %d is not spoken here", spoken.Version)
	}
	said = &order{}
	decoder := json.NewDecoder(bytes.NewReader(payload))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(said); err != nil {
		return nil, orderMalformed, err
	}
	if err := said.check(); err != nil {
		return nil, orderMalformed, err
	}
	return said, 0, nil
}

// orderFailed counts what came of an order, and says so at a bounded rate.
func (g *Gateway) orderFailed(outcome orderOutcome, err error) {
	g.orders.counts[outcome].Add(1)
	what := "an order of another gateway was not carried out"
	if outcome == orderMissed {
		what = "orders of other gateways may have been missed"
	}
	g.reports.warn(g.logger, what+": streams may go on that an operator has ended",
		"outcome", orderOutcomes[outcome], "error", err)
}

// obey carries out the orders of others, one after the other, from when the gateway serves until it
// ends.
func (g *Gateway) obey() {
	select {
	case <-g.orders.begin:
	case <-g.lifetime.Done():
		return
	}
	for {
		select {
		case said := <-g.orders.waiting:
			if said.order == nil {
				close(said.reached)
				continue
			}
			g.obeyOne(said)
		case <-g.lifetime.Done():
			return
		}
	}
}

func (g *Gateway) obeyOne(said loggedOrder) {
	o := g.orders
	o.carrying.RLock()
	defer o.carrying.RUnlock()
	o.done = said.position
	if said.early && !o.inherited.Before(said.position) {
		return // the predecessor did it
	}
	if said.From == o.from {
		return // done when it was given
	}
	count, err := g.carryOut(said.order)
	switch {
	case g.lifetime.Err() != nil: // all its streams end
	case err != nil && !errors.Is(err, ErrNoClient):
		g.orderFailed(orderFailed, err)
	default:
		o.counts[orderDone].Add(1)
		g.logger.Info("an operator of another gateway acted on streams", "do", said.Do, "client", said.Client, "user", said.User,
			"channel", said.Channel, "streams", count, "from", said.From)
	}
}

// distribute tells the other gateways of an order, by Redis.
func (g *Gateway) distribute(said *order) error {
	said.Version, said.From = orderVersion, g.orders.from
	text, err := json.Marshal(said)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(g.lifetime, askTimeout)
	defer cancel()
	_, err = g.broker.Publish(ctx, []broker.Message{
		{Channel: ordersChannel, Payload: text, Kind: broker.Log, MaxLen: ordersKept},
	})
	return err
}

// isOurs reports whether a client id was given by this gateway.
func (g *Gateway) isOurs(client string) bool { return strings.HasPrefix(client, g.epoch+"-") }

// carryOut does what an order says to streams of this gateway, and counts them. Errors are as for
// [Gateway.SendToClient], or that a loop did not answer within askTimeout.
func (g *Gateway) carryOut(said *order) (int, error) {
	g.policy.Forget(said.User, said.Channel) // a yes from before must not let them in again
	if said.Client == "" {
		g.orders.recent.remember(said)
	}
	ctx, cancel := context.WithTimeout(g.lifetime, askTimeout)
	defer cancel()
	do := func(s *sessions, slot netio.Slot) bool {
		s.disconnect(slot)
		return true
	}
	if said.Do == orderUnsubscribe {
		do = func(s *sessions, slot netio.Slot) bool { return s.unsubscribeFrom(slot, said.channel) }
	}
	switch {
	case said.Client != "":
		done := false
		if err := g.direct(ctx, said.Client, func(s *sessions, slot netio.Slot) { done = do(s, slot) }); err != nil || !done {
			return 0, err
		}
		return 1, nil
	case said.User != "":
		if !g.admission.hasUser(said.User) {
			return 0, nil
		}
		return g.doToEach(ctx, do, func(s *sessions, slot netio.Slot) (bool, int) { return s.isUser(s.at(slot), said.User), 1 })
	default:
		return g.doToEach(ctx, do, func(s *sessions, slot netio.Slot) (bool, int) {
			return s.hearsOrWill(slot, said.channel) || s.hearsOrWill(slot, said.wildcard), 1 + s.shard.Subscriptions(slot)
		})
	}
}

// hearsOrWill reports whether a stream has a channel, or waits for a webhook to let it.
func (s *sessions) hearsOrWill(slot netio.Slot, channel proto.Channel) bool {
	return s.shard.Hears(slot, channel) ||
		slices.ContainsFunc(s.asks[slot], func(waiting ask) bool { return waiting.channel == channel })
}

// doToEach does something to every stream that is meant, and counts those that it was done to. meant
// says also how much work it was to find out.
func (g *Gateway) doToEach(ctx context.Context, do func(*sessions, netio.Slot) bool, meant func(*sessions, netio.Slot) (bool, int)) (int, error) {
	count := 0
	for _, s := range g.sessions {
		err := s.inPieces(ctx, func(slot netio.Slot) int {
			is, work := meant(s, slot)
			if is {
				work += 1 + s.shard.Subscriptions(slot)
				if do(s, slot) {
					count++
				}
			}
			return work
		}, func() {})
		if err != nil {
			return 0, err // and not count: the loop may still be at it
		}
	}
	return count, nil
}
