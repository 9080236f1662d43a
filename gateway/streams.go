package gateway

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/millrace/millrace/hub"
	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/proto"
)

const (
	// StreamsMax bounds a list of streams: what an operator can look at.
	StreamsMax = 100
	// slowAfter is how long something has waited for a client that counts as slow, though nothing
	// was withheld from it yet. A burst is taken within milliseconds.
	slowAfter = time.Second
)

// StreamQuery says which streams of a gateway to list. Members that are set must all be met. With
// neither Client, User nor Channel those are listed that are not simply live.
type StreamQuery struct {
	Client  string // the id, as connected told it
	User    string
	Channel string // one that the stream has
	Slow    bool   // only those whose client does not keep up
	Limit   int    // 1..[StreamsMax]; any other: that
}

// StreamList is the answer of GET /api/admin/streams: the worst of what was found.
type StreamList struct {
	Streams []StreamSummary `json:"streams"` // the worst first
	Matched int             `json:"matched"` // streams that the query matches, listed or not
	Open    int             `json:"open"`    // streams of this gateway
}

// StreamSummary says in short how one stream stands; [Gateway.Explain] says the rest.
type StreamSummary struct {
	Client string `json:"client"`
	User   string `json:"user,omitempty"` // empty: anonymous
	Wire   string `json:"wire"`           // as in [Explanation]
	// State is one of streamStates, as in the worst of the stream's channels.
	State string `json:"state"`
	Slow  bool   `json:"slow"` // because of its client
	// AgeMinutes is the time since connected was said; begins anew after 45 days.
	AgeMinutes int `json:"ageMinutes"`
	// Address is where the stream comes from, as limits count it: of IPv6 the /64. Empty: this
	// machine.
	Address       string `json:"address,omitempty"`
	Subscriptions int    `json:"subscriptions"`
	QueuedBytes   int    `json:"queuedBytes"`
	OldestMs      int64  `json:"oldestMs"`   // how long the oldest of these has waited at least
	ProgressMs    int64  `json:"progressMs"` // how long ago the client's socket last took something
}

// streamState is how a stream stands, from the best to the worst.
type streamState uint8

const (
	streamLive       streamState = iota
	streamConnecting             // connected was not said yet
	streamBeginning              // waits for what a subscription begins with
	streamResuming               // gets what it missed while it was away
	streamQueued                 // slow: something has waited for slowAfter
	streamCatchingUp             // slow: a log is read for it
	streamConflating             // slow: of a channel only the newest will be sent
	streamDropping               // slow: events are dropped, and a gap will say so
)

var streamStates = [...]string{"live", "connecting", "beginning", "resuming", "queued", "catching_up", "conflating", "dropping"}

func (s streamState) String() string { return streamStates[s] }

func (s streamState) slow() bool { return s >= streamQueued }

// Streams lists streams of this gateway, for an operator. It visits them loop by loop, in pieces
// between which a loop goes on. It fails with an error of [proto.ParseChannel], if a loop does not
// answer in time, and with [ErrClosed] if the gateway has ended; that there is no such client is an
// empty list.
func (g *Gateway) Streams(ctx context.Context, query StreamQuery) (StreamList, error) {
	search := &streamSearch{query: query}
	if query.Limit < 1 || query.Limit > StreamsMax {
		search.query.Limit = StreamsMax
	}
	var err error
	if query.Channel != "" {
		if search.channel, err = proto.ParseChannel(query.Channel); err != nil {
			return StreamList{}, err
		}
	}
	if err := search.run(ctx, g); err != nil {
		return StreamList{}, err // and nothing of what was found: the loop may still be at it
	}
	list := StreamList{Streams: make([]StreamSummary, len(search.found)), Matched: search.matched, Open: int(g.admission.total.Load())}
	for i := range search.found {
		list.Streams[i] = search.found[i].StreamSummary
	}
	return list, nil
}

// streamSearch is one question for streams. The loops work at it one after the other.
type streamSearch struct {
	query   StreamQuery
	channel proto.Channel
	found   []foundStream // the worst, at most query.Limit, in order
	matched int
}

// foundStream is a stream that a search found.
type foundStream struct {
	StreamSummary
	state streamState
	slot  netio.Slot // until the texts are known: most that are found give way to worse ones
}

func (q *streamSearch) run(ctx context.Context, g *Gateway) error {
	if q.query.Client != "" {
		err := g.direct(ctx, q.query.Client, func(s *sessions, slot netio.Slot) {
			q.visit(s, slot)
			q.finish(s)
		})
		if errors.Is(err, ErrNoClient) {
			return nil
		}
		return err
	}
	for _, s := range g.sessions {
		err := s.inPieces(ctx, func(slot netio.Slot) int { return q.visit(s, slot) }, func() { q.finish(s) })
		if errors.Is(err, netio.ErrLoopClosed) {
			return ErrClosed
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// visit looks at one stream, on its loop, and says how much work it was.
func (q *streamSearch) visit(s *sessions, slot netio.Slot) (work int) {
	work = 1
	one := s.at(slot)
	if q.query.User != "" && !s.isUser(one, q.query.User) {
		return work
	}
	if q.query.Channel != "" {
		work += s.shard.Subscriptions(slot)
		if !s.shard.Hears(slot, q.channel) {
			return work
		}
	}
	state, queue := s.standing(slot, one)
	isNamed := q.query.Client != "" || q.query.User != "" || q.query.Channel != ""
	if q.query.Slow && !state.slow() || state == streamLive && !isNamed {
		return work
	}
	q.matched++
	q.keep(foundStream{
		state: state, slot: slot,
		StreamSummary: StreamSummary{
			State: state.String(), Slow: state.slow(), Subscriptions: s.shard.Subscriptions(slot),
			QueuedBytes: queue.Bytes, OldestMs: queue.Age.Milliseconds(), ProgressMs: s.progress(slot, queue).Milliseconds(),
		},
	})
	return work
}

// keep takes a stream in among the worst.
func (q *streamSearch) keep(one foundStream) {
	at, _ := slices.BinarySearchFunc(q.found, one, func(a, b foundStream) int {
		return cmp.Or(cmp.Compare(b.state, a.state), cmp.Compare(b.QueuedBytes, a.QueuedBytes), cmp.Compare(b.ProgressMs, a.ProgressMs))
	})
	if at == q.query.Limit {
		return
	}
	if len(q.found) == q.query.Limit {
		q.found = q.found[:len(q.found)-1]
	}
	q.found = slices.Insert(q.found, at, one)
}

// finish looks up the texts of what was kept of a piece, on the loop, before a slot can be another
// stream's.
func (q *streamSearch) finish(s *sessions) {
	for i := range q.found {
		found := &q.found[i]
		if found.slot == 0 {
			continue
		}
		one := s.at(found.slot)
		found.Client, found.User = s.gateway.clientID(s.loop.ID(found.slot)), s.user(one)
		found.Wire = formNames[s.shard.Form(found.slot)]
		found.AgeMinutes = s.ageMinutes(one)
		found.Address = s.gateway.admission.address(s.people.placeOf(one.person))
		found.slot = 0
	}
}

// standings are the states by which the hub's standings show here.
var standings = [...]streamState{
	hub.StandingLive: streamLive, hub.StandingBeginning: streamBeginning, hub.StandingResuming: streamResuming,
	hub.StandingCatchingUp: streamCatchingUp, hub.StandingConflating: streamConflating, hub.StandingDropping: streamDropping,
}

// standing says how a stream stands, and what waits for it. It is cheap: no system call, no lock.
func (s *sessions) standing(slot netio.Slot, one *session) (streamState, netio.Queue) {
	state, queue := standings[s.shard.Standing(slot)], s.loop.Queue(slot)
	switch {
	case state < streamQueued && queue.Age >= slowAfter:
		state = streamQueued
	case state == streamLive && one.flags&sessionGreeted == 0:
		state = streamConnecting
	}
	return state, queue
}

// progress is how long ago the client's socket last took something.
func (s *sessions) progress(slot netio.Slot, queue netio.Queue) time.Duration {
	if queue.Frames > 0 {
		return queue.Silent
	}
	return s.since(s.loop.LastWrite(slot))
}

// ageMinutes is the time since a stream was greeted, 0 if it was not.
func (s *sessions) ageMinutes(one *session) int {
	if one.flags&sessionGreeted == 0 {
		return 0
	}
	return int(s.minute() - one.waiting)
}

// serveStreams is GET /api/admin/streams?slow=1&user=ID&client=ID&channel=C&limit=N.
func (g *Gateway) serveStreams(w http.ResponseWriter, r *http.Request) {
	query := StreamQuery{Client: r.FormValue("client"), User: r.FormValue("user"), Channel: r.FormValue("channel")}
	switch slow := r.FormValue("slow"); slow {
	case "", "0":
	case "1":
		query.Slow = true
	default:
		g.answer(w, r, refuse(refuseBadRequest, "slow is 1 or 0"))
		return
	}
	if limit := r.FormValue("limit"); limit != "" {
		number, err := strconv.Atoi(limit)
		if err != nil || number < 1 || number > StreamsMax {
			g.answer(w, r, refuse(refuseBadRequest, "limit is 1 to "+strconv.Itoa(StreamsMax)))
			return
		}
		query.Limit = number
	}
	ctx, cancel := context.WithTimeout(r.Context(), askTimeout)
	defer cancel()
	list, err := g.Streams(ctx, query)
	switch {
	case errors.Is(err, proto.ErrBadChannel):
		g.answer(w, r, refusalOf(err))
	case err != nil:
		g.answer(w, r, adminRefusal(err))
	default:
		answerJSON(w, http.StatusOK, list)
	}
}
