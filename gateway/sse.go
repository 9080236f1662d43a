package gateway

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/millrace/millrace/gateway/auth"
	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/proto"
)

// serveStream is GET /api/stream?channel=C&channel=C2: server-sent events.
func (g *Gateway) serveStream(w http.ResponseWriter, r *http.Request) {
	if g.draining.Load() {
		g.answerLater(w, refuseDraining)
		return
	}
	who, _, err := g.identify(r, false)
	if err != nil {
		g.answer(w, r, refusalOf(err))
		return
	}
	positions, ended := lastEventIDs(r)
	if ended {
		w.WriteHeader(http.StatusNoContent) // the stream is complete: an EventSource stops for good
		return
	}
	channels, err := g.requestedChannels(r, who)
	if err != nil {
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
		setStreamHeader(w.Header())
		w.WriteHeader(http.StatusOK)
		return
	}
	place, refused := g.admission.enter(who.User, auth.ClientAddress(r, g.proxies))
	if refused != nil {
		if refused.code == refuseOverloaded {
			g.answerLater(w, refuseOverloaded)
			return
		}
		g.answer(w, r, refused)
		return
	}
	head := proto.AppendSSEHead(nil, form == proto.FormSSE, corsOf(w.Header()))
	head = proto.AppendSSERetry(head, form, g.retryWait())
	g.park(w, r, &guest{
		form: form, head: head, who: who, ticket: place,
		channels: channels, lastEventIDs: positions,
	})
}

// park hands the connection over to a loop.
func (g *Gateway) park(w http.ResponseWriter, r *http.Request, one *guest) {
	if err := netio.Park(w, one); err != nil {
		g.admission.leave(one.ticket)
		g.answer(w, r, refuse(refuseBadRequest, err.Error()))
	}
}

// corsOf picks from the headers set so far those that a parked answer must repeat.
func corsOf(header http.Header) http.Header {
	var cors http.Header
	for name, values := range header {
		if name == "Vary" || strings.HasPrefix(name, "Access-Control-") {
			if cors == nil {
				cors = make(http.Header)
			}
			cors[name] = values
		}
	}
	return cors
}

// requestedChannels gives the channels that a request is to hear: those it names, all of which
// must be allowed, and those that come without asking.
func (g *Gateway) requestedChannels(r *http.Request, who *auth.Identity) ([]proto.Channel, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, refuse(refuseBadRequest, "the query string has a broken escape")
	}
	names := query["channel"]
	if limit := g.options.Limits.MaxSubscriptions; limit > 0 && len(names) > limit {
		return nil, refuse(refuseBadRequest, "the request names more channels than max-subscriptions allows")
	}
	var channels []proto.Channel
	seen := make(map[string]bool, len(names))
	for _, name := range names {
		channel, err := proto.ParseChannel(name)
		if err != nil {
			return nil, err
		}
		if seen[name] {
			continue
		}
		seen[name] = true
		if err := g.maySubscribe(r.Context(), who, channel); err != nil {
			return nil, err
		}
		channels = append(channels, channel)
	}
	for _, channel := range g.unaskedChannels(who) {
		if !seen[channel.Name()] {
			seen[channel.Name()] = true
			channels = append(channels, channel)
		}
	}
	if len(channels) == 0 {
		return nil, refuse(refuseBadRequest, "no channel: add ?channel=type:id, as often as you like")
	}
	return channels, nil
}

// position is where a client says that it was.
type position struct {
	channel proto.Channel // zero: the text is no id
	text    string
}

// lastEventIDs reads where the client would go on from. ended says that the stream it names is
// complete. A text that is no id is a position that nobody knows: it is kept, for the gap.
func lastEventIDs(r *http.Request) (positions []position, ended bool) {
	query := r.URL.Query()
	texts := slices.Concat(r.Header.Values("Last-Event-ID"), query["lastEventId"], query["since"])
	for _, text := range texts {
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
