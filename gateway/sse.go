package gateway

import (
	"net/http"

	"github.com/millrace/millrace/gateway/auth"
	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/proto"
)

// streamHeadBytes has room for the head of most streams and for their retry.
const streamHeadBytes = 320

// serveStream is GET /api/stream?channel=C&channel=C2: server-sent events.
func (g *Gateway) serveStream(w http.ResponseWriter, r *http.Request) {
	if g.draining.Load() {
		g.answerLater(w, r, refuseDraining)
		return
	}
	who, _, err := g.identify(r, false)
	if err != nil {
		g.answer(w, r, refusalOf(err))
		return
	}
	query, err := g.readQuery(r)
	if err != nil {
		g.answer(w, r, refusalOf(err))
		return
	}
	positions, ended := lastEventIDs(r, query)
	if ended {
		g.origins.CORS(w.Header(), r)
		w.WriteHeader(http.StatusNoContent) // the stream is complete: an EventSource stops for good
		return
	}
	if err := g.requestedChannels(r, &query, who); err != nil {
		g.answer(w, r, refusalOf(err))
		return
	}
	if err := g.mayResume(r, who, positions); err != nil {
		g.answer(w, r, refusalOf(err))
		return
	}
	form := proto.FormSSE
	if !r.ProtoAtLeast(1, 1) {
		form = proto.FormSSEPlain
	}
	if r.Method == http.MethodHead {
		g.origins.CORS(w.Header(), r)
		setStreamHeader(w.Header())
		w.WriteHeader(http.StatusOK)
		return
	}
	place, refused := g.admission.enter(who.User, auth.ClientAddress(r, g.proxies))
	if refused != nil {
		if refused.code == refuseOverloaded {
			g.answerLater(w, r, refuseOverloaded)
			return
		}
		g.answer(w, r, refused)
		return
	}
	head := proto.AppendSSEHead(make([]byte, 0, streamHeadBytes), form == proto.FormSSE, g.origins.AppendCORS(nil, r))
	head = proto.AppendSSERetry(head, form, g.retryWait())
	g.park(w, r, &guest{
		form: form, head: head, who: who, ticket: place,
		channels: query.channels, lastEventIDs: positions,
	})
}

// park hands the connection over to a loop.
func (g *Gateway) park(w http.ResponseWriter, r *http.Request, one *guest) {
	if err := netio.Park(w, one); err != nil {
		g.admission.leave(one.ticket)
		g.answer(w, r, refuse(refuseBadRequest, err.Error()))
	}
}

// requestedChannels checks the channels that a request names, all of which must be allowed, and
// adds those that come without asking.
func (g *Gateway) requestedChannels(r *http.Request, query *streamQuery, who *auth.Identity) error {
	for _, channel := range query.channels {
		if err := g.maySubscribe(r.Context(), who, channel); err != nil {
			return err
		}
	}
	for _, channel := range g.unaskedChannels(who) {
		query.add(channel)
	}
	if len(query.channels) == 0 {
		return refuse(refuseBadRequest, "no channel: add ?channel=type:id, as often as you like")
	}
	return nil
}

// position is where a client says that it was.
type position struct {
	channel proto.Channel // zero: the text is no id
	text    string
}

// lastEventIDs reads where the client would go on from. ended says that the stream it names is
// complete. A text that is no id is a position that nobody knows: it is kept, for the gap.
func lastEventIDs(r *http.Request, query streamQuery) (positions []position, ended bool) {
	for _, text := range append(query.after, r.Header["Last-Event-Id"]...) {
		if text == "" {
			continue
		}
		id, err := proto.ParseID(text)
		switch {
		case err != nil:
			positions = append(positions, position{})
		case id.Kind == proto.IDEnd:
			return nil, true
		default:
			positions = append(positions, position{channel: id.Channel, text: text})
		}
	}
	return positions, false
}

// mayResume checks that the channels in positions are ones that may be heard.
func (g *Gateway) mayResume(r *http.Request, who *auth.Identity, positions []position) error {
	for _, one := range positions {
		if one.channel.IsZero() {
			continue
		}
		if err := g.maySubscribe(r.Context(), who, one.channel); err != nil {
			return err
		}
	}
	return nil
}

// noteUnknownPositions tells a client that would go on from somewhere that events may be missing
// since then, on every channel of its.
func (s *sessions) noteUnknownPositions(slot netio.Slot, positions []position) {
	if len(positions) == 0 {
		return
	}
	s.shard.Channels(slot, func(channel proto.Channel, _ bool) bool {
		after := ""
		for _, one := range positions {
			if one.channel == channel {
				after = one.text
			}
		}
		s.say(slot, "gap", proto.AppendGap(nil, channel.Name(), after, proto.GapUnknownPosition))
		return true
	})
}

// endSSE says why and ends the stream in order.
func (s *sessions) endSSE(slot netio.Slot, reason netio.Reason, code, message string) {
	form := s.shard.Form(slot)
	bytes := proto.AppendMessage(nil, form, "server_error", proto.AppendServerError(nil, code, message))
	s.loop.SendBytes(slot, proto.AppendSSEEnd(bytes, form))
	s.loop.End(slot, reason)
}
