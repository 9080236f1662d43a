package gateway

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/millrace/millrace/proto"
)

// streamQuery is what a request for a stream says in its query, read in one pass and without a
// map: a handshake is short, and what it allocates is most of what our share of it costs.
type streamQuery struct {
	channels            []proto.Channel // each once, in the order of the query
	lastEventIDs, since []string        // positions to go on from
}

// readQuery reads the query. Escapes must be whole; a semicolon separates nothing.
func (g *Gateway) readQuery(r *http.Request) (q streamQuery, err error) {
	limit := g.options.Limits.MaxSubscriptions
	for pair := range strings.SplitSeq(r.URL.RawQuery, "&") {
		rawName, rawValue, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(rawName)
		if err != nil {
			return q, refuse(refuseBadRequest, "the query string has a broken escape")
		}
		value, err := url.QueryUnescape(rawValue)
		if err != nil || strings.Contains(pair, ";") {
			return q, refuse(refuseBadRequest, "the query string has a broken escape")
		}
		switch name {
		case "channel":
			channel, err := proto.ParseChannel(value)
			if err != nil {
				return q, err
			}
			if q.add(channel); limit > 0 && len(q.channels) > limit {
				return q, refuse(refuseBadRequest, "the request names more channels than max-subscriptions allows")
			}
		case "lastEventId":
			q.lastEventIDs = append(q.lastEventIDs, value)
		case "since":
			q.since = append(q.since, value)
		}
	}
	return q, nil
}

// queryValue is the first value of name in the query, "" if there is none.
func queryValue(r *http.Request, name string) string {
	if !strings.Contains(r.URL.RawQuery, name) {
		return "" // the names that we ask for need no escapes
	}
	return r.URL.Query().Get(name)
}

// add adds a channel unless it is there. The number of channels is bounded and small.
func (q *streamQuery) add(channel proto.Channel) {
	for _, other := range q.channels {
		if other == channel {
			return
		}
	}
	q.channels = append(q.channels, channel)
}
