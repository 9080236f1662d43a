package council

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
	"time"
)

// Model is one judge as viewers know it.
type Model struct {
	Name  string `json:"model"` // a plain word
	Label string `json:"label"`
}

// Opening is what the first entry of a council's log says of it.
type Opening struct {
	Models []Model `json:"models"`
	// Demo says that nobody was asked: the judges are rubrics of this program's own.
	Demo bool `json:"demo"`
	// Ends is when the council is over at the latest, in milliseconds since 1970.
	Ends int64 `json:"ends"`
}

// entry is any entry of a council's log.
type entry struct {
	Council *Opening `json:"council,omitempty"`
	Model   string   `json:"model,omitempty"`
	Chunk   string   `json:"chunk,omitempty"`
	// Text is never in a log: it is what all chunks of a model are to one who comes later.
	Text   string   `json:"text,omitempty"`
	Score  *float64 `json:"score,omitempty"`
	Reason string   `json:"reason,omitempty"`
	Error  string   `json:"error,omitempty"`
	Type   string   `json:"type,omitempty"`
}

// encode writes JSON without the escapes that HTML would need.
func encode(value any) []byte {
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		panic(err) // of types of our own: a defect
	}
	return bytes.TrimSuffix(buffer.Bytes(), []byte("\n"))
}

// verdict is how a model ended.
type verdict struct {
	score  *float64 // nil: it gave none
	reason string
	fault  string // why there is no score
	took   time.Duration
}

func (v verdict) encode(model string) []byte {
	if v.score == nil {
		return encode(entry{Model: model, Error: v.fault})
	}
	return encode(entry{Model: model, Score: v.score, Reason: v.reason})
}

// complete is the last entry of a log, and what the event complete says.
type complete struct {
	Type   string             `json:"type"`
	Scores map[string]float64 `json:"scores"`
	// Mean and Spread (the highest less the lowest) are of those that gave a score; null with none.
	Mean      *float64           `json:"mean"`
	Spread    *float64           `json:"spread"`
	Times     map[string]float64 `json:"times"` // seconds
	Errors    map[string]string  `json:"errors"`
	Cancelled bool               `json:"cancelled,omitempty"`
}

// conclude sums up all verdicts.
func conclude(verdicts map[string]verdict, cancelled bool) []byte {
	c := complete{
		Type: completeType, Scores: map[string]float64{}, Times: map[string]float64{}, Errors: map[string]string{}, Cancelled: cancelled,
	}
	var scores []float64
	for model, v := range verdicts {
		if v.took > 0 {
			c.Times[model] = math.Round(v.took.Seconds()*1000) / 1000
		}
		if v.score == nil {
			c.Errors[model] = v.fault
			continue
		}
		c.Scores[model] = *v.score
		scores = append(scores, *v.score)
	}
	if len(scores) > 0 {
		slices.Sort(scores) // so that the sum does not depend on the order of a map
		sum := 0.0
		for _, score := range scores {
			sum += score
		}
		c.Mean = new(rounded(sum / float64(len(scores))))
		c.Spread = new(rounded(scores[len(scores)-1] - scores[0]))
	}
	return encode(c)
}

// rounded gives four places: the difference of two scores must not show how computers count.
func rounded(number float64) float64 { return math.Round(number*1e4) / 1e4 }

const completeType = "complete"

var completePrefix = []byte(`{"type":"` + completeType + `"`)

// IsComplete reports whether an entry of a council's log is its last one. It is quick, and safe on a
// loop.
func IsComplete(payload []byte) bool { return bytes.HasPrefix(payload, completePrefix) }
