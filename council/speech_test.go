package council

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestVerdictIsFound(t *testing.T) {
	long := strings.Repeat("é", 2000)
	for _, test := range []struct {
		name   string
		said   string
		text   string  // that is told
		score  float64 // -1: none
		reason string
	}{
		{"on a line of its own", "Good.\n" + `{"score": 0.7, "reason": "ok"}`, "Good.\n", 0.7, "ok"},
		{"white space behind it", "Good.\n" + `{"score": 0.7, "reason": "ok"}` + " \r\n\n", "Good.\n", 0.7, "ok"},
		{"over several lines", "Good.\n{\n  \"score\": 1,\n  \"reason\": \"ok\"\n}\n", "Good.\n", 1, "ok"},
		{"in a code block", "Good.\n```json\n" + `{"score": 0, "reason": "bad"}` + "\n```\n", "Good.\n", 0, "bad"},
		{"nothing else", `{"score":0.25}`, "", 0.25, ""},
		{"indented", "Good.\n  " + `{"score": 0.7}`, "Good.\n  ", 0.7, ""},
		{"at the end of a sentence", `Good. {"score": 0.7, "reason": "ok"}`, `Good. {"score": 0.7, "reason": "ok"}`, 0.7, "ok"},
		{"a brace in the reason", "x\n" + `{"score":0.5,"reason":"the } and { in it"}`, "x\n", 0.5, "the } and { in it"},
		{"another block before it", "x\n{\"a\":1}\nthen\n" + `{"score":0.5,"reason":"r"}`, "x\n{\"a\":1}\nthen", 0.5, "r"},
		{"clamped above", "x\n" + `{"score": 7.8, "reason": "r"}`, "x\n", 1, "r"},
		{"clamped below", "x\n" + `{"score": -3, "reason": "r"}`, "x\n", 0, "r"},
		{"exponent", "x\n" + `{"score": 5e-1}`, "x\n", 0.5, ""},
		{"a long reason", "x\n" + `{"score": 0.5, "reason": "` + long[:1200] + `"}`, "x\n", 0.5, long[:1024]},
		{"something behind it", "x\n" + `{"score": 0.5}` + "\nI hope that helps.", "x\n" + `{"score": 0.5}` + "\nI hope that helps.", -1, ""},
		{"a text as score", "x\n" + `{"score": "0.5"}`, "x\n" + `{"score": "0.5"}`, -1, ""},
		{"no score", "x\n" + `{"reason": "r"}`, "x\n" + `{"reason": "r"}`, -1, ""},
		{"null", "x\n" + `{"score": null}`, "x\n" + `{"score": null}`, -1, ""},
		{"not a number of JSON's", "x\n" + `{"score": NaN}`, "x\n" + `{"score": NaN}`, -1, ""},
		{"too large a number", "x\n" + `{"score": 1e999}`, "x\n" + `{"score": 1e999}`, -1, ""},
		{"more members", "x\n" + `{"score": 0.5, "note": 1}`, "x\n" + `{"score": 0.5, "note": 1}`, -1, ""},
		{"two in one line", "x\n" + `{"score": 0.5}{"score": 0.9}`, "x\n" + `{"score": 0.5}`, 0.9, ""},
		{"cut", "x\n" + `{"score": 0.5, "reason": "r`, "x\n" + `{"score": 0.5, "reason": "r`, -1, ""},
		{"nothing", "", "", -1, ""},
		{"braces without end", "x\n" + strings.Repeat("{", 5000), "x\n" + strings.Repeat("{", 5000), -1, ""},
		{"a long block", "`" + long + "\n" + `{"score": 0.5}`, "`" + long + "\n", 0.5, ""},
	} {
		for _, size := range []int{1, 2, 3, 7, 1 << 20} {
			var s speech
			told := ""
			for rest := test.said; rest != ""; {
				piece := cutRunes(rest, size)
				if !s.add(piece) {
					t.Fatalf("%s: not taken", test.name)
				}
				rest = rest[len(piece):]
				text := s.take(chunkBytesMax)
				if !utf8.ValidString(text) {
					t.Fatalf("%s, by %d: a character is broken", test.name, size)
				}
				told += text
			}
			v, ok := s.end()
			told += s.take(1 << 20)
			if told != test.text {
				t.Errorf("%s, by %d: told %.300q, want %.300q", test.name, size, told, test.text)
			}
			switch {
			case ok != (test.score >= 0):
				t.Errorf("%s, by %d: a verdict: %v", test.name, size, ok)
			case ok && (*v.score != test.score || v.reason != test.reason):
				t.Errorf("%s, by %d: score %v, reason %q", test.name, size, *v.score, v.reason)
			}
		}
	}
}

// cutRunes gives at least one whole character, and about size bytes.
func cutRunes(text string, size int) string {
	end := min(size, len(text))
	for end < len(text) && !utf8.RuneStart(text[end]) {
		end++
	}
	return text[:end]
}

func TestSpeechIsTakenInWholeCharacters(t *testing.T) {
	var s speech
	text := strings.Repeat("a€", 5000)
	s.add(text)
	told := ""
	for range 20_000 {
		piece := s.take(10)
		if !utf8.ValidString(piece) || len(piece) > 10 {
			t.Fatalf("a piece is %q", piece)
		}
		told += piece
	}
	if told != text {
		t.Errorf("%d bytes told of %d", len(told), len(text))
	}
}

func FuzzSpeech(f *testing.F) {
	f.Add("Good.\n{\"score\":0.5}", 3)
	f.Add("`x`\n{\n{\"score\":0.5,\"reason\":\"{\"}```", 1)
	f.Fuzz(func(t *testing.T, said string, size int) {
		said = strings.ToValidUTF8(said, "?")
		if len(said) > textBytesMax || size < 1 {
			return
		}
		tell := func(size int) (told string, score float64) {
			var s speech
			for rest := said; rest != ""; {
				piece := cutRunes(rest, size)
				s.add(piece)
				rest = rest[len(piece):]
				told += s.take(chunkBytesMax)
			}
			v, ok := s.end()
			told += s.take(textBytesMax)
			if !ok {
				return told, -1
			}
			return told, *v.score
		}
		told, score := tell(size)
		whole, wholeScore := tell(1 << 20)
		if told != whole || score != wholeScore {
			t.Errorf("by %d: %q and %v; whole: %q and %v", size, told, score, whole, wholeScore)
		}
		if !strings.HasPrefix(said, told) || score < 0 && told != said {
			t.Errorf("told %q of %q", told, said)
		}
	})
}
