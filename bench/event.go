package bench

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// newEventPayload makes a payload of exactly size bytes that looks like what workers publish: names
// that stay, and numbers of which some change with each message. It is for questions of compression:
// what newPayload makes says the same thing again and again.
func newEventPayload(size int) (*payload, error) {
	const head, job, tail = `{"type":"progress",`, `,"jobId":"job_4711","stage":"encode","percent":5#.#`, `}`
	const room = len(`,"note":""`)
	if least := len(head) + markBytes + len(job) + room + len(tail); size < least {
		return nil, fmt.Errorf("an event of %d bytes cannot carry its mark: at least %d", size, least)
	}
	var text strings.Builder
	text.WriteString(head)
	text.WriteString(markStart + strings.Repeat("0", stampDigits) + markMiddle + strings.Repeat("0", numberDigits))
	text.WriteString(job)
	const row = `,"worker-%02d":{"state":"running","frames":4#_###,"bitrate":29##.#,"queue":[1#,2,0]}`
	for n := 0; text.Len()+len(row)+room+len(tail) <= size; n++ {
		fmt.Fprintf(&text, strings.ReplaceAll(row, "_", ""), n)
	}
	const words = "rendering a film of many frames, each of which somebody waits for; "
	text.WriteString(`,"note":"`)
	left := size - text.Len() - len(`"`) - len(tail)
	text.WriteString(strings.Repeat(words, left/len(words)+1)[:left])
	text.WriteString(`"` + tail)

	p := &payload{bytes: []byte(text.String()), random: rand.New(rand.NewPCG(1, 2))}
	at := len(head)
	p.mark = p.bytes[at : at+markBytes]
	for i, c := range p.bytes {
		if c == '#' {
			p.changing = append(p.changing, i)
		}
	}
	return p, nil
}
