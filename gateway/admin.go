package gateway

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/millrace/millrace/gateway/auth"
	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/proto"
)

// adminPiece is how many streams of a loop are looked at in one go, or how much is done of other
// work that takes as long, so that no loop stands still for the sake of an operator.
const adminPiece = 8192

// serveDisconnect is POST /api/admin/disconnect?client=ID, ?user=ID or ?channel=C: it ends streams,
// here and on every gateway of the fleet.
func (g *Gateway) serveDisconnect(w http.ResponseWriter, r *http.Request) {
	g.administer(w, r, orderDisconnect, "disconnected")
}

// serveUnsubscribe is POST /api/admin/unsubscribe?channel=C, with &client=ID or &user=ID if it is not
// meant for everybody: it takes a channel from streams, here and on every gateway of the fleet.
func (g *Gateway) serveUnsubscribe(w http.ResponseWriter, r *http.Request) {
	g.administer(w, r, orderUnsubscribe, "unsubscribed")
}

// administer has an operator's order carried out here and told to the other gateways, and answers to
// how many streams of this one it was done, under the name outcome. An operator who goes away meanwhile
// does not stop it.
func (g *Gateway) administer(w http.ResponseWriter, r *http.Request, do, outcome string) {
	// On the admin listener nobody was asked who they are; a page in somebody's browser is kept
	// out all the same.
	if err := auth.CheckOrigin(r, auth.SourceNone, g.origins, g.proxies); err != nil {
		g.answer(w, r, refusalOf(err))
		return
	}
	said, refused := orderOf(r, do)
	if refused != nil {
		g.answer(w, r, refused)
		return
	}
	isForAll := r.FormValue("scope") != scopeGateway
	count, err, untold := g.act(said, isForAll)
	g.logger.Info("an operator acted on streams", "outcome", outcome, "client", said.Client, "user", said.User, "channel", said.Channel,
		"streams", count, "distributed", isForAll && untold == nil)
	switch {
	case err != nil:
		g.answer(w, r, adminRefusal(err))
	case untold != nil:
		g.answer(w, r, refuse(refuseBroker, "done to "+strconv.Itoa(count)+" streams of this gateway, but the others were not told: "+untold.Error()+"; ask again"))
	default:
		answerJSON(w, http.StatusOK, map[string]any{outcome: count, "distributed": isForAll})
	}
}

// act carries out here what an operator of this gateway wants and, if it is for all, tells the other
// gateways. err says what went wrong here, untold why the others were not told. It waits for an upgrade
// that is about to be decided.
func (g *Gateway) act(said *order, isForAll bool) (count int, err, untold error) {
	g.orders.carrying.RLock()
	defer g.orders.carrying.RUnlock()
	if g.orders.moved && !isForAll {
		return 0, errMoved, nil
	}
	count, err = g.carryOut(said)
	isFound := said.Client != "" && err == nil
	if isForAll && g.options.Redis != "" && !isFound {
		untold = g.distribute(said)
		if errors.Is(err, ErrNoClient) && (g.orders.moved || !g.isOurs(said.Client)) {
			err = nil // it may be another gateway's, or our successor's
		}
	}
	return count, err, untold
}

// errMoved says that nothing is left here to act on.
var errMoved = errors.New("the streams have just gone to another process, by an upgrade; ask again")

// scopeGateway keeps an order to the gateway that was asked.
const scopeGateway = "gateway"

// orderOf reads an operator's order from a request. What is there but empty, a variable of a script
// that was not set, is refused: it must not mean everybody.
func orderOf(r *http.Request, do string) (*order, *refusal) {
	said := &order{Do: do, Client: r.FormValue("client"), User: r.FormValue("user"), Channel: r.FormValue("channel")}
	for name, value := range map[string]string{"client": said.Client, "user": said.User, "channel": said.Channel} {
		if r.Form.Has(name) && value == "" {
			return nil, refuse(refuseBadRequest, name+"= is empty; leave it out if it is not meant")
		}
	}
	switch scope := r.FormValue("scope"); scope {
	case "", scopeGateway:
	default:
		return nil, refuse(refuseBadRequest, "scope is gateway, or left out for all gateways")
	}
	if err := said.check(); err != nil {
		return nil, refusalOf(err)
	}
	return said, nil
}

func adminRefusal(err error) *refusal {
	switch {
	case errors.Is(err, ErrNoClient):
		return refuse(refuseNotFound, "there is no such client on this gateway, or it is gone; each gateway knows its own streams only")
	case err == errMoved:
		return refuse(refuseOverloaded, err.Error())
	}
	return refuse(refuseOverloaded, "a loop does not answer")
}

// inPieces visits every open stream of the loop, in pieces of about adminPiece of the work that a
// visit says it was, between which the loop goes on, and finishes each piece before it does. Both
// run on the loop. After an error it may still be at a piece.
func (s *sessions) inPieces(ctx context.Context, visit func(netio.Slot) (work int), finish func()) error {
	for next, more := netio.Slot(1), true; more; {
		err := s.loop.Do(ctx, func() {
			for done := 0; done < adminPiece && next <= s.highest; next++ {
				done++ // for a free slot too
				if s.at(next).flags&sessionHere != 0 && s.loop.Open(next) {
					done += visit(next) - 1
				}
			}
			more = next <= s.highest
			finish()
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// disconnect ends a stream because an operator says so.
func (s *sessions) disconnect(slot netio.Slot) {
	if s.at(slot).flags&sessionWebSocket != 0 {
		s.closeWebSocket(slot, endDisconnected, "Disconnected")
		return
	}
	s.endSSE(slot, endDisconnected, "disconnected", "an operator has ended this stream")
}

// unsubscribeFrom takes a channel from a stream, tells its client, and reports whether it had it, or
// waited for a webhook to let it.
func (s *sessions) unsubscribeFrom(slot netio.Slot, channel proto.Channel) bool {
	waited := s.dropAsks(slot, channel)
	if had := s.shard.Unsubscribe(slot, channel); !had && !waited {
		return false
	}
	if s.gateway.debugs() {
		s.debug(slot, "unsubscribed", "channel", channel.Name())
	}
	s.say(slot, "unsubscribed", proto.AppendUnsubscribed(nil, channel.Name(), nil))
	s.greetIfNothingWaits(slot, s.at(slot))
	return true
}

// Explanation says how one stream stands: the answer of GET /api/admin/explain.
type Explanation struct {
	Client     string               `json:"client"`
	User       string               `json:"user,omitempty"` // empty: anonymous
	Wire       string               `json:"wire"`           // sse, sse_plain, text or envelope, with _gzip, _deflate or _packed behind it where it is compressed
	State      string               `json:"state"`          // as in [StreamSummary]
	Address    string               `json:"address,omitempty"`
	Greeted    bool                 `json:"greeted"`    // connected was said
	AgeMinutes int                  `json:"ageMinutes"` // since then; begins anew after 45 days
	Channels   []ChannelExplanation `json:"channels"`
	Queue      QueueExplanation     `json:"queue"`
	Peer       PeerExplanation      `json:"peer"`
	// Dropped and Conflated count events since the stream has been behind on a channel; 0 if it
	// is not.
	Dropped   uint64 `json:"dropped"`
	Conflated uint64 `json:"conflated"`
	// GapsDue counts the channels that a gap will be told of as soon as the queue is empty.
	GapsDue int `json:"gapsDue"`
}

// ChannelExplanation says how a stream stands in one of its channels.
type ChannelExplanation struct {
	Channel string `json:"channel"`
	Mode    string `json:"mode"` // events, log or state
	// State is live, or asked (Redis has not confirmed), waiting (the client is not told yet),
	// replayed (has more than the channel's flow brought), dropping (lags: a gap will say so),
	// newest (lags: the newest will be sent), reading (a log is read for it), unknown_position.
	State string `json:"state"`
	// Position is the id of the last event that the stream has, or that it will go on from.
	Position string `json:"position,omitempty"`
	Streams  int    `json:"streams"` // that hear the channel on the same loop
}

// QueueExplanation says what waits in this process for a stream.
type QueueExplanation struct {
	Frames      int   `json:"frames"`
	Bytes       int   `json:"bytes"`
	OldestMs    int64 `json:"oldestMs"`    // how long the oldest has waited at least
	BytesMax    int   `json:"bytesMax"`    // max-queue-bytes; 0: no limit
	OldestMsMax int64 `json:"oldestMsMax"` // max-queue-age; 0: no limit
}

// PeerExplanation says what the kernel knows of the client.
type PeerExplanation struct {
	// UnackedBytes were given to the kernel and not acknowledged by the client; -1: not known.
	UnackedBytes    int     `json:"unackedBytes"`
	UnackedSegments int     `json:"unackedSegments"`
	RTTMs           float64 `json:"rttMs"`
	RTTSpreadMs     float64 `json:"rttSpreadMs"`
	Retransmits     int     `json:"retransmits"` // since the connection began
	// ProgressMs is how long ago the client's socket last took something.
	ProgressMs int64 `json:"progressMs"`
}

// serveExplain is GET /api/admin/explain?client=ID.
func (g *Gateway) serveExplain(w http.ResponseWriter, r *http.Request) {
	client := r.FormValue("client")
	if client == "" {
		g.answer(w, r, refuse(refuseBadRequest, "name a client: ?client=, as connected told it"))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), askTimeout)
	defer cancel()
	explanation, err := g.Explain(ctx, client)
	if err != nil {
		g.answer(w, r, adminRefusal(err))
		return
	}
	answerJSON(w, http.StatusOK, explanation)
}

// Explain says how the stream of a client stands, for an operator. Errors as for
// [Gateway.SendToClient].
func (g *Gateway) Explain(ctx context.Context, clientID string) (Explanation, error) {
	var explanation Explanation
	err := g.direct(ctx, clientID, func(s *sessions, slot netio.Slot) { explanation = s.explain(slot) })
	if err != nil {
		return Explanation{}, err // the loop may still be writing it
	}
	return explanation, nil
}

// explain runs on the loop.
func (s *sessions) explain(slot netio.Slot) Explanation {
	one, limits := s.at(slot), s.gateway.options.Limits
	stands := s.shard.Explain(slot)
	state, _ := s.standing(slot, one)
	e := Explanation{
		Client: s.gateway.clientID(s.loop.ID(slot)), User: s.who(one).User, Wire: formNames[stands.Form],
		State: state.String(), Address: s.gateway.admission.address(s.people.placeOf(one.person)),
		Greeted: one.flags&sessionGreeted != 0, AgeMinutes: s.ageMinutes(one),
		Dropped: stands.Dropped, Conflated: stands.Conflated,
		Channels: make([]ChannelExplanation, 0, len(stands.Channels)),
		Queue: QueueExplanation{
			Frames: stands.Queue.Frames, Bytes: stands.Queue.Bytes, OldestMs: stands.Queue.Age.Milliseconds(),
			BytesMax: max(limits.MaxQueueBytes, 0), OldestMsMax: max(limits.MaxQueueAge, 0).Milliseconds(),
		},
		Peer: PeerExplanation{UnackedBytes: s.loop.Unacknowledged(slot), ProgressMs: s.progress(slot, stands.Queue).Milliseconds()},
	}
	if tcp, known := s.loop.TCP(slot); known {
		e.Peer.UnackedSegments, e.Peer.Retransmits = tcp.UnackedSegments, tcp.Retransmits
		e.Peer.RTTMs, e.Peer.RTTSpreadMs = float64(tcp.RTT.Microseconds())/1000, float64(tcp.RTTSpread.Microseconds())/1000
	}
	for _, one := range stands.Channels {
		if one.State == "dropping" {
			e.GapsDue++
		}
		e.Channels = append(e.Channels, ChannelExplanation{
			Channel: one.Channel.Name(), Mode: string(modeName(one.Kind)), State: one.State, Position: one.After, Streams: one.Members,
		})
	}
	return e
}

// since is the time from a tick until now.
func (s *sessions) since(tick netio.Tick) time.Duration {
	return time.Duration(s.loop.Tick()-tick) * netio.TickLength
}
