package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/council"
	"github.com/millrace/millrace/gateway/access"
	"github.com/millrace/millrace/gateway/auth"
	"github.com/millrace/millrace/hub"
	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/proto"
)

const (
	councilPath = "/api/stream/council-score"
	// councilCancelWait is how long a cancellation waits for the council to be complete.
	councilCancelWait = 5 * time.Second
	// councilEscapes is how many bytes of JSON one byte of a prompt may be.
	councilEscapes = 6
)

// councilAsk is what a request wants of a council.
type councilAsk struct {
	who    *auth.Identity
	id     string // of the council to join; "": a new one
	prompt string

	ordersBefore uint64 // as a guest has it
}

// serveCouncil is /api/stream/council-score: GET or POST begins a council, or joins one by its id;
// DELETE ends one.
func (g *Gateway) serveCouncil(w http.ResponseWriter, r *http.Request) {
	if g.draining.Load() && r.Method != http.MethodDelete {
		g.answerLater(w, r, refuseDraining)
		return
	}
	ask, refused := g.readCouncilAsk(r)
	switch {
	case refused != nil:
		g.answer(w, r, refused)
	case ask == nil:
		g.origins.CORS(w.Header(), r)
		w.WriteHeader(http.StatusNoContent) // the council is complete: an EventSource stops for good
	case r.Method == http.MethodDelete:
		g.cancelCouncil(w, r, ask)
	case r.Method == http.MethodHead:
		g.origins.CORS(w.Header(), r)
		setStreamHeader(w.Header())
		w.WriteHeader(http.StatusOK)
	default:
		g.openCouncil(w, r, ask)
	}
}

// readCouncilAsk says what is wanted, and by whom; nil if the council is complete and the client has
// been told so.
func (g *Gateway) readCouncilAsk(r *http.Request) (*councilAsk, *refusal) {
	ordersBefore := g.orders.recent.count.Load()
	who, _, err := g.identify(r, r.Method == http.MethodPost)
	if err != nil {
		return nil, refusalOf(err)
	}
	if g.verifier != nil && who.Anonymous {
		return nil, refuse(refuseUnauthorized, "a council needs a token")
	}
	if g.verifier == nil && isForeignPage(r) {
		return nil, refuse(refuseBadOrigin, "the browser says that another site's page asks, and says not which; a council costs money")
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, refuse(refuseBadRequest, "the query string has a broken escape")
	}
	ask := &councilAsk{who: who, id: query.Get("id"), prompt: query.Get("prompt"), ordersBefore: ordersBefore}
	after := append(r.Header["Last-Event-Id"], query["lastEventId"]...)
	if isEnded(after) {
		return nil, nil
	}
	for _, text := range after {
		if id, err := proto.ParseID(text); err == nil && id.Channel.Type() == access.CouncilType {
			// Coming back goes before what the address says, which EventSource repeats: it would
			// begin another council.
			ask.id, _, _ = strings.Cut(strings.TrimPrefix(id.Channel.Name(), access.CouncilType+":"), ":")
			break
		}
	}
	if r.Method == http.MethodPost && ask.id == "" {
		return ask, g.readCouncilBody(r, ask)
	}
	return ask, nil
}

// isForeignPage reports whether a browser says that a page of another site caused the request but
// not which one, as for an image or a link: GET begins a council, and whoever may not read it shall
// not pay for one either.
func isForeignPage(r *http.Request) bool {
	site := r.Header.Get("Sec-Fetch-Site")
	return len(r.Header["Origin"]) == 0 && site != "" && site != "same-origin" && site != "none"
}

// readCouncilBody reads {"prompt":".."}, for prompts that are too long for an address.
func (g *Gateway) readCouncilBody(r *http.Request, ask *councilAsk) *refusal {
	if !auth.IsJSON(r) {
		return refuse(refuseMediaType, "a prompt is posted with Content-Type: application/json")
	}
	limit := int64(councilEscapes*g.councils.all.PromptBytesMax()) + 1<<10
	body, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) || int64(len(body)) > limit {
		return refuse(refuseTooLarge, fmt.Sprintf("the body is larger than a prompt of %d bytes can be", g.councils.all.PromptBytesMax()))
	}
	var asked struct {
		Prompt string `json:"prompt"`
	}
	if err != nil || json.Unmarshal(body, &asked) != nil {
		return refuse(refuseBadRequest, `the body must be {"prompt":"TEXT"}`)
	}
	ask.prompt = asked.Prompt
	return nil
}

// openCouncil begins a council, unless one is to be joined, and makes the connection one of its
// viewers.
func (g *Gateway) openCouncil(w http.ResponseWriter, r *http.Request, ask *councilAsk) {
	address := auth.ClientAddress(r, g.proxies)
	place, refused := g.admission.enter(ask.who.User, address)
	if refused != nil {
		if refused.code == refuseOverloaded {
			g.answerLater(w, r, refuseOverloaded)
			return
		}
		g.answer(w, r, refused)
		return
	}
	payer := "user " + ask.who.User
	if ask.who.User == "" {
		payer = "address " + auth.LimitKey(address)
	}
	viewer, err := g.councilViewer(r.Context(), ask, payer)
	if err != nil {
		g.admission.leave(place)
		g.answer(w, r, councilRefusal(err))
		return
	}
	// Never compressed: a prompt that others may have had a hand in stands there beside answers for
	// its owner alone.
	viewer.form = proto.FormSSE
	if !r.ProtoAtLeast(1, 1) {
		viewer.form = proto.FormSSEPlain
	}
	viewer.ticket = place
	viewer.head = proto.AppendSSEHead(make([]byte, 0, streamHeadBytes), viewer.form == proto.FormSSE, g.origins.AppendCORS(nil, r))
	viewer.head = proto.AppendSSERetry(viewer.head, viewer.form, g.retryWait())
	g.park(w, r, viewer)
}

// councilViewer begins the council if it is to be a new one, and gives a viewer of it: what was said
// so far, and where to go on.
func (g *Gateway) councilViewer(ctx context.Context, ask *councilAsk, payer string) (*guest, error) {
	id := ask.id
	if id == "" {
		id = council.NewID()
	}
	channel, err := councilChannel(id, ask.who.User)
	if err != nil {
		return nil, errNoCouncil // an id that none can have
	}
	if ask.id == "" {
		if _, err := g.councils.all.Begin(ctx, channel.Name(), payer, ask.prompt); err != nil {
			return nil, err
		}
		g.councils.listen()
	}
	story, at, err := g.councils.read(ctx, channel.Name())
	switch {
	case err != nil:
		return nil, err
	case story.Opening == nil:
		return nil, errNoCouncil
	}
	g.councils.follow(ctx, channel, story.Opening)
	position := string(proto.AppendLogID(nil, channel.Name(), at.Milliseconds, at.Sequence, 0))
	return &guest{
		who: ask.who, channels: []proto.Channel{channel}, ordersBefore: ask.ordersBefore,
		from:    []hub.From{{Kind: hub.FromEntry, Position: at, Text: position}},
		preface: &preface{members: story.Opening.Members(id), id: position, messages: story.Events()},
	}, nil
}

// errNoCouncil says that there is no such council, or that it is somebody else's: which of the two
// is nobody's business.
var errNoCouncil = refuse(refuseNotFound, "there is no such council of yours (any more)")

// councilRefusal words why a council could not be begun or joined.
func councilRefusal(err error) *refusal {
	var refused *council.Refusal
	switch {
	case errors.As(err, &refused):
	case errors.Is(err, broker.ErrUnavailable), errors.Is(err, broker.ErrRefused), errors.Is(err, context.DeadlineExceeded):
		return refuse(refuseBroker, "Redis, which keeps what a council says, is away or refuses it; try again")
	default:
		return refusalOf(err)
	}
	code := map[council.Reason]refusalCode{
		council.BadPrompt: refuseBadRequest, council.PromptTooLong: refuseTooLarge, council.TooOften: refuseRateLimited,
		council.TooManyOfUser: refuseRateLimited, council.TooMany: refuseRateLimited, council.Closing: refuseDraining,
	}[refused.Reason]
	answer := refuse(code, refused.Message)
	if refused.Wait > 0 {
		answer.header = http.Header{"Retry-After": {strconv.Itoa(int(math.Ceil(refused.Wait.Seconds())))}}
	}
	return answer
}

// councilChannel is the log of a council. The owner is part of its name, so that nobody else finds
// it: as it is where it can be, else as a hash; neither can be taken for the other.
func councilChannel(id, user string) (proto.Channel, error) {
	switch {
	case id == "":
		return proto.Channel{}, errNoCouncil // without it the owner would stand in its place
	case user == "":
		return proto.NewChannel(access.CouncilType, id, "")
	}
	if !strings.HasPrefix(user, "=") {
		if channel, err := proto.NewChannel(access.CouncilType, id, user); err == nil {
			return channel, nil
		}
	}
	sum := sha256.Sum256([]byte(user))
	return proto.NewChannel(access.CouncilType, id, "="+base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:]))
}

// cancelCouncil ends a council wherever it runs, and answers when it has ended.
func (g *Gateway) cancelCouncil(w http.ResponseWriter, r *http.Request, ask *councilAsk) {
	channel, err := councilChannel(ask.id, ask.who.User)
	if err != nil {
		g.answer(w, r, refuse(refuseBadRequest, "say which council: ?id=ID"))
		return
	}
	ctx, stop := context.WithTimeout(r.Context(), councilCancelWait)
	defer stop()
	if err := g.councils.cancel(ctx, channel.Name()); err != nil {
		g.answer(w, r, councilRefusal(err))
		return
	}
	g.origins.CORS(w.Header(), r)
	w.WriteHeader(http.StatusNoContent)
}

// preface is what a stream begins with beside the greeting.
type preface struct {
	members  []byte // of connected, beside its own
	id       string // of connected and the messages
	messages [][]byte
}

// sayPreface greets an event stream with more than the usual. What is sent is bounded by who made it.
func (s *sessions) sayPreface(slot netio.Slot, first *preface, greeting []byte) {
	form := s.shard.Form(slot)
	greeting = append(append(append(greeting[:len(greeting)-1], ','), first.members...), '}')
	s.loop.SendBytes(slot, proto.AppendSSE(nil, form, "connected", first.id, greeting))
	for _, message := range first.messages {
		s.loop.SendBytes(slot, proto.AppendSSE(nil, form, "", first.id, message))
	}
}

// complete ends a stream that was sent the last entry of its log.
func (s *sessions) complete(slot netio.Slot) {
	if s.at(slot).flags&sessionWebSocket != 0 {
		s.closeWebSocket(slot, endComplete, "Complete")
		return
	}
	s.loop.End(slot, endComplete)
}
