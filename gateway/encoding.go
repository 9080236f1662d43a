package gateway

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/millrace/millrace/netio"
	"github.com/millrace/millrace/proto"
	"github.com/millrace/millrace/proto/deflate"
)

// This file says in which form a stream takes its events compressed, and how the gateway's own words
// reach one that does.

// packs reports whether a client asks for the seed's way: large payloads in messages compressed.
func (g *Gateway) packs(r *http.Request) (bool, error) {
	switch compress := queryValue(r, "compress"); compress {
	case "":
		return false, nil
	case "envelope":
		return !g.options.DisableCompression, nil
	default:
		return false, refuse(refuseBadRequest, "compress must be envelope, or left out")
	}
}

// sseForm is the form of an event stream that a request asks for. What asks for the seed's way gets
// that alone: nothing is compressed twice.
func (g *Gateway) sseForm(r *http.Request) (proto.Form, error) {
	packs, err := g.packs(r)
	zips := !packs && !g.options.DisableCompression && acceptsGzip(r.Header["Accept-Encoding"])
	chunks := r.ProtoAtLeast(1, 1)
	switch {
	case packs && chunks:
		return proto.FormSSEPacked, err
	case packs:
		return proto.FormSSEPlainPacked, err
	case zips && chunks:
		return proto.FormSSEGzip, err
	case zips:
		return proto.FormSSEPlainGzip, err
	case chunks:
		return proto.FormSSE, err
	default:
		return proto.FormSSEPlain, err
	}
}

// webSocketForm is the form of a WebSocket, and the header line of the answer that says so, if there
// has to be one.
func (g *Gateway) webSocketForm(r *http.Request) (form proto.Form, line []byte, err error) {
	packs, err := g.packs(r)
	if err != nil {
		return 0, nil, err
	}
	extension, failure := proto.NegotiateDeflate(r.Header["Sec-Websocket-Extensions"])
	form = proto.FormText
	switch {
	case failure != nil:
		return 0, nil, failure
	case packs:
		form = proto.FormTextPacked
	case extension != "" && !g.options.DisableCompression:
		form, line = proto.FormTextDeflate, []byte("Sec-WebSocket-Extensions: "+extension+"\r\n")
	}
	switch format := queryValue(r, "format"); format {
	case "", "raw":
		return form, line, nil
	case "envelope":
		return form.Enveloped(), line, nil
	default:
		return 0, nil, refuse(refuseBadRequest, "format must be raw or envelope")
	}
}

// acceptsGzip reports whether Accept-Encoding takes gzip, and would not rather have no encoding
// (RFC 9110, 12.5.3). What is not written as it should be is not taken for a wish.
func acceptsGzip(values []string) bool {
	const unsaid = -1
	gzip, identity, rest := unsaid, unsaid, unsaid // in thousandths
	for _, value := range values {
		for element := range strings.SplitSeq(value, ",") {
			coding, parameter, weighed := strings.Cut(element, ";")
			weight := 1000
			if weighed {
				var ok bool
				if weight, ok = parseWeight(parameter); !ok {
					continue
				}
			}
			switch strings.ToLower(strings.Trim(coding, " \t")) {
			case "gzip", "x-gzip": // RFC 9110, 8.4.1.3
				gzip = max(gzip, weight)
			case "identity":
				identity = weight
			case "*":
				rest = weight
			}
		}
	}
	if gzip == unsaid {
		gzip = rest
	}
	return gzip > 0 && gzip >= identity
}

// parseWeight reads q=0.5 (RFC 9110, 12.4.2), in thousandths.
func parseWeight(parameter string) (weight int, ok bool) {
	name, value, found := strings.Cut(strings.Trim(parameter, " \t"), "=")
	if !found || !strings.EqualFold(name, "q") || value == "" || len(value) > len("0.000") {
		return 0, false
	}
	whole, part, _ := strings.Cut(value, ".")
	if whole != "0" && whole != "1" {
		return 0, false
	}
	thousandths, err := strconv.ParseUint((part + "000")[:3], 10, 16)
	weight = int(whole[0]-'0')*1000 + int(thousandths)
	return weight, err == nil && weight <= 1000
}

// streamHead gives the head of the answer to a request for an event stream, with when to come back
// behind it; of a gzip stream, that text too.
func (g *Gateway) streamHead(r *http.Request, form proto.Form) (head, text []byte) {
	extra := g.origins.AppendCORS(make([]byte, 0, streamHeadBytes/2), r)
	if !g.options.DisableCompression {
		extra = append(extra, "Vary: Accept-Encoding\r\n"...)
	}
	if form.IsGzip() {
		extra = append(extra, "Content-Encoding: gzip\r\n"...)
	}
	head = proto.AppendSSEHead(make([]byte, 0, streamHeadBytes), r.ProtoAtLeast(1, 1), extra)
	if !form.IsGzip() {
		return proto.AppendSSERetry(head, form, g.retryWait()), nil
	}
	text = proto.AppendSSERetry(nil, form, g.retryWait())
	return proto.AppendGzipStart(head, form, text), text
}

// setEncodingHeader sets what streamHead says of an encoding, for who asks for the head alone.
func (g *Gateway) setEncodingHeader(header http.Header, form proto.Form) {
	if !g.options.DisableCompression {
		header.Add("Vary", "Accept-Encoding")
	}
	if form.IsGzip() {
		header.Set("Content-Encoding", "gzip")
	}
}

// inflaterOf gives what undoes the messages of a client that has agreed on compression, nil for others.
func (s *sessions) inflaterOf(slot netio.Slot) *deflate.Inflater {
	if s.shard.Form(slot).IsDeflate() {
		return &s.inflater
	}
	return nil
}

// sendOwn queues what the Append functions of package proto wrote for a stream, whatever is queued
// already.
func (s *sessions) sendOwn(slot netio.Slot, text []byte) {
	f := s.shard.OwnFrame(s.shard.Form(slot), text)
	s.loop.Send(slot, f, netio.Express)
	s.loop.Release(f)
}

// sendEvent sends an event to one stream alone. It is not compressed.
func (s *sessions) sendEvent(slot netio.Slot, event *proto.Event) {
	if form := s.shard.Form(slot); form.IsGzip() {
		s.send(slot, event.Text(form).Bytes)
	} else {
		s.send(slot, event.Bytes(form))
	}
}

// endStream sends the last words of an event stream and ends it in order.
func (s *sessions) endStream(slot netio.Slot, reason netio.Reason, text []byte) {
	if form := s.shard.Form(slot); form.IsGzip() {
		s.sendOwn(slot, text)
		sum, length := s.loop.TextSum(slot)
		s.loop.SendBytes(slot, proto.AppendGzipEnd(nil, form, sum, length))
	} else {
		s.loop.SendBytes(slot, proto.AppendSSEEnd(text, form))
	}
	s.loop.End(slot, reason)
}
