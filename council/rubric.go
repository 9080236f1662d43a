package council

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode"
)

// measured is what the rubrics count in a text.
type measured struct {
	words      []string // without punctuation, as they were written
	sentences  int
	syllables  int
	longWords  int // of more than 12 letters
	numbers    int // words with a digit in them
	names      int // words with a capital that begin no sentence
	vague      []string
	hype       []string
	actions    []string
	shouted    int // words of three letters or more, all capitals
	exclaimed  int
	asked      int
	paragraphs int
	opening    int // words of the first sentence
}

// The words that the rubrics know, in lower case.
var (
	vagueWords = wordSet("thing things stuff solution solutions quality various several many some very really innovative " +
		"leverage synergy world-class robust seamless holistic cutting-edge state-of-the-art next-generation something somehow")
	hypeWords = wordSet("amazing incredible revolutionary unbelievable guaranteed guarantee best ultimate insane magic magical " +
		"miracle perfect epic mind-blowing game-changing game-changer unprecedented explosive secret free instantly forever never always")
	actionWords = wordSet("buy try start join sign call click order download book subscribe register reserve visit contact apply " +
		"get discover request watch read write reply")
)

func wordSet(words string) map[string]bool {
	set := make(map[string]bool)
	for word := range strings.FieldsSeq(words) {
		set[word] = true
	}
	return set
}

// measure counts in one pass over the words of a text.
func measure(text string) *measured {
	m := &measured{exclaimed: strings.Count(text, "!"), asked: strings.Count(text, "?")}
	for paragraph := range strings.SplitSeq(text, "\n") {
		if strings.TrimSpace(paragraph) != "" {
			m.paragraphs++
		}
	}
	begins := true // a sentence
	for field := range strings.FieldsSeq(text) {
		word := strings.TrimFunc(field, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
		if word != "" {
			m.count(word, begins)
			begins = false
		}
		if strings.ContainsAny(field[len(field)-1:], ".!?") && len(m.words) > 0 && !begins {
			m.endSentence()
			begins = true
		}
	}
	if !begins {
		m.endSentence()
	}
	return m
}

func (m *measured) endSentence() {
	if m.sentences == 0 {
		m.opening = len(m.words)
	}
	m.sentences++
}

// count takes one word.
func (m *measured) count(word string, begins bool) {
	m.words = append(m.words, word)
	letters, capitals, digits := 0, 0, 0
	for _, r := range word {
		switch {
		case unicode.IsDigit(r):
			digits++
		case unicode.IsLetter(r):
			letters++
			if unicode.IsUpper(r) {
				capitals++
			}
		}
	}
	lower := strings.ToLower(word)
	m.syllables += syllablesOf(lower)
	if letters > 12 {
		m.longWords++
	}
	first := []rune(word)[0]
	switch {
	case digits > 0:
		m.numbers++
	case letters >= 3 && capitals == letters:
		m.shouted++
	case !begins && unicode.IsUpper(first) && word != "I":
		m.names++
	}
	for _, kind := range []struct {
		known map[string]bool
		found *[]string
	}{{vagueWords, &m.vague}, {hypeWords, &m.hype}, {actionWords, &m.actions}} {
		if kind.known[lower] && !slices.Contains(*kind.found, lower) {
			*kind.found = append(*kind.found, lower)
		}
	}
}

// syllablesOf counts groups of vowels, which is near enough for English.
func syllablesOf(word string) int {
	groups, inside := 0, false
	for _, r := range word {
		vowel := strings.ContainsRune("aeiouyäöüéèáóí", r)
		if vowel && !inside {
			groups++
		}
		inside = vowel
	}
	if strings.HasSuffix(word, "e") && groups > 1 {
		groups--
	}
	return max(groups, 1)
}

// share is part of whole, 0 of nothing.
func share(part, whole int) float64 {
	if whole == 0 {
		return 0
	}
	return float64(part) / float64(whole)
}

// counted gives a number with its noun, in English.
func counted(number int, one string) string {
	if number == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", number, one)
}

// listed gives the first words of a list, as they stand in a sentence.
func listed(words []string) string {
	return `"` + strings.Join(words[:min(len(words), 3)], `", "`) + `"`
}

// judgeClarity scores how easily the text reads, by Flesch's reading ease.
func judgeClarity(m *measured) opinion {
	if len(m.words) == 0 {
		return opinion{"There is no word to read.", 0, "There is no text."}
	}
	perSentence := share(len(m.words), m.sentences)
	ease := 206.835 - 1.015*perSentence - 84.6*share(m.syllables, len(m.words))
	score := min(max(ease, 0), 100)/100 - 2*share(m.longWords, len(m.words))
	says := fmt.Sprintf("The text has %s in %s, %.1f to a sentence, and reads with an ease of %.0f on Flesch's scale of 100.",
		counted(len(m.words), "word"), counted(m.sentences, "sentence"), perSentence, min(max(ease, 0), 100))
	reason := "It reads easily."
	switch {
	case perSentence > 22:
		says += " The sentences are long: cut the longest in two."
		reason = "Its sentences are too long."
	case ease < 45:
		says += " Many words are long: say it as you would to a neighbour."
		reason = "Its words are too heavy."
	default:
		says += " Sentences of this length are read to their end."
	}
	if m.longWords > 0 {
		says += " I count " + counted(m.longWords, "word") + " of more than twelve letters."
	}
	return opinion{says, score, reason}
}

// judgeConcreteness scores numbers and names against words that could stand anywhere.
func judgeConcreteness(m *measured) opinion {
	if len(m.words) == 0 {
		return opinion{"There is nothing that could be concrete.", 0, "There is no text."}
	}
	facts := m.numbers + m.names
	density := share(facts, len(m.words))
	score := 0.25 + 5*density - 3*share(len(m.vague), len(m.words))
	says := "I find " + counted(m.numbers, "number") + " and " + counted(m.names, "name") + " in " + counted(len(m.words), "word") + "."
	reason := "It names what it talks about."
	switch {
	case facts == 0:
		says += " Nothing here can be checked: say how much, how soon, for whom."
		reason = "It holds no fact."
	case density < 0.05:
		says += " A few more facts would carry it further than adjectives."
		reason = "It holds few facts for its length."
	default:
		says += " That gives a reader something to hold on to."
	}
	if len(m.vague) > 0 {
		says += " Words such as " + listed(m.vague) + " could stand in any text: replace them."
	}
	return opinion{says, score, reason}
}

// judgeTone scores how little the text shouts.
func judgeTone(m *measured) opinion {
	if len(m.words) == 0 {
		return opinion{"Silence has no tone.", 0, "There is no text."}
	}
	score := 0.95 - 0.07*float64(m.exclaimed) - 4*share(m.shouted, len(m.words)) - 0.06*float64(len(m.hype)) -
		2*share(len(m.hype), len(m.words))
	says := "I count " + counted(m.exclaimed, "exclamation mark") + ", " + counted(m.shouted, "shouted word") + " and " + counted(len(m.hype), "boast") + "."
	reason := "It speaks calmly."
	switch {
	case m.exclaimed+m.shouted > 3:
		says += " It shouts: one exclamation mark is one too many for most readers."
		reason = "It shouts."
	case len(m.hype) > 2:
		says += " It praises itself more than it explains."
		reason = "It praises itself."
	default:
		says += " A reader is spoken to, and not shouted at."
	}
	if len(m.hype) > 0 {
		says += " I would take out " + listed(m.hype) + "."
	}
	return opinion{says, score, reason}
}

// judgeStructure scores length, beginning, paragraphs and whether the reader is asked to do something.
func judgeStructure(m *measured) opinion {
	words := len(m.words)
	if words == 0 {
		return opinion{"There is nothing to take in order.", 0, "There is no text."}
	}
	score := 0.2
	says := "The text has " + counted(words, "word") + " in " + counted(m.paragraphs, "paragraph") + "."
	if words >= 15 && words <= 400 {
		score += 0.25
		says += " That is a length that people read."
	} else {
		score += 0.25 * math.Exp(-math.Abs(math.Log(float64(words)/80)))
		says += " That is a length at which it says too little, or loses its readers."
	}
	if m.opening <= 14 {
		score += 0.2
		says += " It opens with a short sentence."
	} else {
		says += fmt.Sprintf(" It opens with %d words in one breath: begin shorter.", m.opening)
	}
	if share(words, m.paragraphs) <= 80 {
		score += 0.1
	} else {
		says += " Break it into paragraphs."
	}
	reason := "It tells the reader what to do next."
	if len(m.actions) > 0 {
		score += 0.25
		says += " It asks the reader to act: " + listed(m.actions) + "."
	} else {
		says += " Nobody is told what to do next: end with one thing to do."
		reason = "It does not say what to do next."
	}
	return opinion{says, score, reason}
}
