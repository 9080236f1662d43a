package council

import (
	"encoding/json"
	"strings"
	"time"
)

// Story is a council's log folded into what somebody who comes later has to be told. The zero value
// is one of which nothing was read yet. It belongs to one goroutine.
type Story struct {
	// Opening is nil until the first entry was read.
	Opening *Opening
	// Entries counts what was read.
	Entries int
	// Complete is the last entry, nil as long as there is none.
	Complete []byte

	told map[string]*told
}

// told is what one model has said so far.
type told struct {
	text    strings.Builder
	verdict []byte
	ended   verdict
}

// Read takes the next entry of the log. One that is not a council's is passed over, and so is what
// stands behind the end.
func (s *Story) Read(payload []byte) {
	s.Entries++
	var e entry
	if s.Complete != nil || json.Unmarshal(payload, &e) != nil {
		return
	}
	switch {
	case IsComplete(payload):
		s.Complete = payload
	case e.Council != nil:
		if s.Opening == nil {
			s.Opening = e.Council
		}
	case e.Model != "" && s.has(e.Model):
		s.take(e, payload)
	}
}

func (s *Story) has(model string) bool {
	if s.Opening == nil {
		return false
	}
	for _, one := range s.Opening.Models {
		if one.Name == model {
			return true
		}
	}
	return false
}

func (s *Story) take(e entry, payload []byte) {
	if s.told == nil {
		s.told = make(map[string]*told)
	}
	t := s.told[e.Model]
	if t == nil {
		t = &told{}
		s.told[e.Model] = t
	}
	switch {
	case e.Score != nil || e.Error != "":
		t.verdict, t.ended = payload, verdict{score: e.Score, reason: e.Reason, fault: e.Error}
	case t.text.Len()+len(e.Chunk) <= textBytesMax:
		t.text.WriteString(e.Chunk)
	}
}

// Events gives what was said so far as messages for one viewer: for each model its whole text as
// one, and its verdict if it has one.
func (s *Story) Events() (events [][]byte) {
	if s.Opening == nil {
		return nil
	}
	for _, model := range s.Opening.Models {
		t := s.told[model.Name]
		if t == nil {
			continue
		}
		if t.text.Len() > 0 {
			events = append(events, encode(entry{Model: model.Name, Text: t.text.String()}))
		}
		if t.verdict != nil {
			events = append(events, t.verdict)
		}
	}
	return events
}

// Lost reports whether the council should be over by now and nobody has said that it is: the gateway
// that ran it is gone.
func (s *Story) Lost(now time.Time) bool {
	return s.Opening != nil && s.Complete == nil && now.UnixMilli() > s.Opening.Ends+lostAfter.Milliseconds()
}

// lostAfter is how long after its deadline a council counts as lost: clocks of gateways differ, and
// one whose Redis was away may append its end late.
const lostAfter = appendPatience + 5*time.Second

// finish is the end of a lost council, in the words of whoever found it.
func (s *Story) finish() [][]byte {
	verdicts := make(map[string]verdict)
	var entries [][]byte
	for _, model := range s.Opening.Models {
		if t := s.told[model.Name]; t != nil && t.verdict != nil {
			verdicts[model.Name] = t.ended
			continue
		}
		lost := verdict{fault: errLost.Error()}
		verdicts[model.Name] = lost
		entries = append(entries, lost.encode(model.Name))
	}
	return append(entries, conclude(verdicts, false))
}

// Members are what connected says of a council, as members of a JSON object without its braces.
func (o *Opening) Members(id string) []byte {
	members := encode(struct {
		ID     string  `json:"councilId"`
		Models []Model `json:"models"`
		Demo   bool    `json:"demo"`
	}{id, o.Models, o.Demo})
	return members[1 : len(members)-1]
}
