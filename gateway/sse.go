package gateway

import (
	"net/http"
	"slices"
	"strings"

	"github.com/millrace/millrace/gateway/auth"
	"github.com/millrace/millrace/hub"
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
	ordersBefore := g.orders.recent.count.Load()
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
	after := positionsOf(r, query)
	if isEnded(after) {
		g.origins.CORS(w.Header(), r)
		w.WriteHeader(http.StatusNoContent) // the stream is complete: an EventSource stops for good
		return
	}
	if err := g.requestedChannels(r, &query, who); err != nil {
		g.answer(w, r, refusalOf(err))
		return
	}
	if err := g.mayResume(r, who, after); err != nil {
		g.answer(w, r, refusalOf(err))
		return
	}
	form, err := g.sseForm(r)
	if err != nil {
		g.answer(w, r, refusalOf(err))
		return
	}
	if r.Method == http.MethodHead {
		g.origins.CORS(w.Header(), r)
		setStreamHeader(w.Header())
		g.setEncodingHeader(w.Header(), form)
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
	head, text := g.streamHead(r, form)
	g.park(w, r, &guest{
		form: form, head: head, text: text, who: who, ticket: place,
		channels: query.channels, from: g.fromEach(query.channels, after), ordersBefore: ordersBefore,
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

// positionsOf gives the ids behind which the client would go on. What EventSource sends by itself
// when it comes back is newer than what stands in the address that it was made with; since is for
// who comes for the first time.
func positionsOf(r *http.Request, query streamQuery) []string {
	for _, texts := range [...][]string{r.Header["Last-Event-Id"], query.lastEventIDs, query.since} {
		given := slices.DeleteFunc(slices.Clone(texts), func(text string) bool { return text == "" })
		if len(given) > 0 {
			return given
		}
	}
	return nil
}

// isEnded reports whether one of the ids is that of a finished stream.
func isEnded(after []string) bool {
	return slices.ContainsFunc(after, func(text string) bool {
		id, err := proto.ParseID(text)
		return err == nil && id.Kind == proto.IDEnd
	})
}

// mayResume checks that the channels that the ids name are ones that may be heard.
func (g *Gateway) mayResume(r *http.Request, who *auth.Identity, after []string) error {
	for _, text := range after {
		id, err := proto.ParseID(text)
		if err != nil {
			continue // 0, or a position that nobody knows
		}
		if err := g.maySubscribe(r.Context(), who, id.Channel); err != nil {
			return err
		}
	}
	return nil
}

// fromEach says where each channel goes on: behind the id that names it, else behind the last one
// given, since an id stands for the whole connection. Nil: nowhere.
func (g *Gateway) fromEach(channels []proto.Channel, after []string) []hub.From {
	if len(after) == 0 {
		return nil
	}
	from := make([]hub.From, len(channels))
	for i, channel := range channels {
		text := after[len(after)-1]
		for _, one := range after {
			if isIDOf(one, channel) {
				text = one
			}
		}
		from[i] = g.from(channel, text)
	}
	return from
}

// from says where a channel goes on behind an id. A gap on the channel repeats the id only if it
// is the channel's own.
func (g *Gateway) from(channel proto.Channel, text string) hub.From {
	from := g.hub.From(channel, text)
	if !isIDOf(text, channel) {
		from.Text = ""
	}
	return from
}

// isIDOf reports whether a text begins as an id of channel does.
func isIDOf(text string, channel proto.Channel) bool {
	rest, found := strings.CutPrefix(text, channel.Name())
	return found && strings.HasPrefix(rest, "/")
}

// endSSE says why and ends the stream in order.
func (s *sessions) endSSE(slot netio.Slot, reason netio.Reason, code, message string) {
	text := proto.AppendMessage(nil, s.shard.Form(slot), "server_error", proto.AppendServerError(nil, code, message))
	s.endStream(slot, reason, text)
}
