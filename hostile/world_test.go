package hostile

import (
	"crypto/ecdsa"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/millrace/millrace/internal/processtest"
	"github.com/millrace/millrace/internal/redistest"
)

// How often something must have been counted. Other numbers are exact.
const (
	some  = -1 // at least once
	maybe = -2 // or not at all
)

// bytesSpare is how much more resident memory there may be after a case than before, where the
// case does not say otherwise: what the allocator keeps for itself after a load.
const bytesSpare = 24 << 20

// goroutinesSpare is for the runtime's own, and for requests of the harness.
const goroutinesSpare = 4

// abuse is one case of the list.
type abuse struct {
	id string // as in the list: A1
	// sent says in a few words what the case sends.
	sent string
	// arguments, file, descriptors, group and address are the gateway's; see [start].
	arguments   []string
	file        string
	descriptors int
	group       string
	address     string
	// redis runs a Redis that feeds the gateway; with these arguments.
	redis          bool
	redisArguments []string
	// authenticated gives the gateway a secret, and the bystanders tokens.
	authenticated bool
	// counts names what must have counted the case ("desk bad_request", see [verdicts]), and how
	// often. What is not named must not have counted anything.
	counts map[string]int
	// gaps allows gaps to the bystanders: the case touches what feeds them.
	gaps bool
	// mortal says that the gateway ends in the case: what needs it alive is not checked after.
	mortal bool
	// bytesSpare is the tolerance of memory, 0: the usual.
	bytesSpare int

	// prepare, where set, runs before the gateway starts and may add to w.abuse's arguments, file,
	// group and address, to the world's Redis and to its other host.
	prepare func(w *world)
	do      func(w *world)
}

// world is what surrounds one case.
type world struct {
	*testing.T
	abuse      abuse
	gateway    *gateway
	redis      *redistest.Server // nil: none
	redisHost  *host             // that Redis is on; nil: this one
	far        *host             // another one, of the cases that have one
	stands     *host             // where connections are made from; nil: this one
	feed       *feed
	token      string // of the bystanders, "" without authentication
	bystanders []*bystander
	key        *ecdsa.PrivateKey // of the cases with a public key
	keySet     *keySet           // of the cases with one
	webhook    *gatedWebhook     // of the case with one

	mutex   sync.Mutex
	secrets []string // what no log line may hold
	came    []string // what came back
	opened  []*connection
	load    string // what was held meanwhile
}

// payloadMark stands in every payload of a case, so that the log can be searched for it.
const payloadMark = "payload-mark-7f3a"

// note adds to what came back, for the table.
func (w *world) note(format string, arguments ...any) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.came = append(w.came, fmt.Sprintf(format, arguments...))
}

// held says what load the case held, for the table.
func (w *world) held(format string, arguments ...any) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.load = fmt.Sprintf(format, arguments...)
}

// cpu is the processor time that the gateway has used so far.
func (w *world) cpu() time.Duration {
	w.Helper()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(w.gateway.command.Process.Pid) + "/stat")
	if err != nil {
		w.Fatal(err)
	}
	// Behind the name in brackets; user and system time are fields 14 and 15 of the whole, in
	// hundredths of a second.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	user, err := strconv.Atoi(fields[11])
	if err != nil {
		w.Fatal(err)
	}
	system, err := strconv.Atoi(fields[12])
	if err != nil {
		w.Fatal(err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}

// secret notes what no log line may hold, and gives it back. Of the gateways that the case starts
// besides, too, but for tokens, which are known by their shape.
func (w *world) secret(text string) string {
	if !strings.HasPrefix(text, "eyJ") {
		logs.Secret("a secret of case "+w.abuse.id, text)
	}
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.secrets = append(w.secrets, text)
	return text
}

// within fails the case unless what is awaited comes true in time.
func (w *world) within(limit time.Duration, what string, done func() bool) {
	w.Helper()
	if !processtest.Poll(limit, done) {
		w.Fatalf("%s: not within %v", what, limit)
	}
}

// meet runs one case between the checks of the invariants.
func meet(t *testing.T, one abuse) {
	w := &world{T: t, abuse: one}
	if one.prepare != nil {
		one.prepare(w)
	}
	arguments := slices.Clone(w.abuse.arguments)
	if one.redis {
		w.redis = redistest.Start(t, one.redisArguments...)
		arguments = append(arguments, "--redis", w.redis.URL())
	}
	if one.authenticated {
		arguments = append(arguments, "--auth-hmac-secret", w.secret(hmacSecret))
		w.token = w.secret(sign(map[string]any{"sub": "bystander", "aud": "shop", "publish": []string{"*"}, "exp": time.Now().Add(time.Hour).Unix()}))
	}
	w.gateway = start{
		arguments: arguments, file: w.abuse.file, descriptors: one.descriptors, group: w.abuse.group, address: w.abuse.address,
	}.run(t)
	answerWithin := patience
	if one.gaps { // what feeds the bystanders may be away, and to wait for it would be no feed
		answerWithin = 2 * time.Second
	}
	w.feed = startFeed(w, answerWithin)
	w.bystanders = []*bystander{listen(w, "sse", w.token), listen(w, "websocket", w.token)}
	w.within(patience, "the bystanders hear the feed", w.bystandersHear)
	before, counted := w.measured(), w.counted()
	began := time.Now()
	w.opened = nil
	one.do(w)
	took := time.Since(began)
	for _, c := range w.opened {
		c.Close()
	}
	after := before
	if !one.mortal {
		w.wantAlive()
		after = w.wantReturn(before)
		w.wantCounted(counted)
	}
	w.wantPromise()
	w.wantCleanLog()
	addRow(w, before, after, took)
}

func (w *world) bystandersHear() bool {
	for _, b := range w.bystanders {
		if number, _ := b.heard(); number == 0 {
			return false
		}
	}
	return true
}

func (w *world) measured() cost {
	w.Helper()
	c, err := w.gateway.cost()
	if err != nil {
		w.Fatalf("measuring the gateway: %v", err)
	}
	return c
}

// wantAlive holds invariants 1 and 2.
func (w *world) wantAlive() {
	w.Helper()
	if w.gateway.ended() {
		w.Fatalf("the gateway ended (%v):\n%s", w.gateway.command.ProcessState, w.gateway.said())
	}
	from := w.feed.last()
	for _, b := range w.bystanders {
		// On a busy machine one event may take longer; a gateway that is well brings the next in time.
		if !processtest.Poll(patience, func() bool {
			number, took := b.heard()
			return number > from && took < time.Second
		}) {
			number, took := b.heard()
			w.Errorf("the %s bystander heard %d last, %v after its publication; %d was published before (%v)", b.wire, number, took, from, b.failure)
		}
	}
}

// wantReturn holds invariant 3, and gives what the process holds now.
func (w *world) wantReturn(before cost) (after cost) {
	w.Helper()
	spare := w.abuse.bytesSpare
	if spare == 0 {
		spare = bytesSpare
	}
	if !processtest.Poll(patience, func() bool {
		after = w.measured()
		return after.descriptors <= before.descriptors && after.goroutines <= before.goroutines+goroutinesSpare && after.bytes <= before.bytes+spare
	}) {
		w.Errorf("the gateway holds %+v after the case and held %+v before: more than %d bytes and %d goroutines to spare", after, before, spare, goroutinesSpare)
	}
	return after
}

// verdicts are the metrics that say what became of somebody, by the word that cases use for them;
// the labels' value follows it.
var verdicts = map[string]string{
	"millrace_desk_refused_total":          "desk",
	"millrace_requests_refused_total":      "request",
	"millrace_streams_ended_total":         "end",
	"millrace_events_dropped_total":        "event",
	"millrace_gaps_total":                  "gap",
	"millrace_commands_rate_limited_total": "rate-limited",
	"millrace_deliveries_dropped_total":    "dropped",
	"millrace_broker_losses_total":         "loss",
	"millrace_log_lines_dropped_total":     "log-lines",
}

// innocent are verdicts on nobody: streams that their clients ended, events that nobody listens to.
var innocent = []string{"end peer_closed", "end client_closed", "end peer_reset", "event nobody"}

// counted reads the verdicts.
func (w *world) counted() map[string]int {
	w.Helper()
	values, err := w.gateway.metrics()
	if err != nil {
		w.Fatal(err)
	}
	found := make(map[string]int)
	for series, value := range values {
		family, labels, _ := strings.Cut(series, "{")
		word, isVerdict := verdicts[family]
		if !isVerdict {
			continue
		}
		if _, label, has := strings.Cut(labels, `="`); has {
			word += " " + strings.TrimSuffix(label, `"}`)
		}
		found[word] = int(value)
	}
	return found
}

// wantCounted holds invariant 4.
func (w *world) wantCounted(before map[string]int) {
	w.Helper()
	var wrong []string
	processtest.Poll(patience/3, func() bool {
		wrong = w.miscounted(before, w.counted())
		return len(wrong) == 0
	})
	if len(wrong) > 0 {
		w.Errorf("the counters are not as they should be: %s", strings.Join(wrong, "; "))
	}
}

func (w *world) miscounted(before, after map[string]int) (wrong []string) {
	for _, word := range slices.Sorted(maps.Keys(after)) {
		grown := after[word] - before[word]
		want, named := w.abuse.counts[word]
		switch {
		case slices.Contains(innocent, word) && !named, want == maybe, want == some && grown > 0, want == grown:
		case !named && w.abuse.gaps && (word == "gap broker" || word == "loss"):
		case want == some:
			wrong = append(wrong, word+" counted nothing")
		default:
			wrong = append(wrong, fmt.Sprintf("%s counted %d, want %d", word, grown, want))
		}
	}
	for word := range w.abuse.counts {
		if _, there := after[word]; !there {
			wrong = append(wrong, word+" is no counter")
		}
	}
	return wrong
}

// wantPromise holds the bystanders' half of invariant 2: nothing was lost in silence.
func (w *world) wantPromise() {
	w.Helper()
	for _, b := range w.bystanders {
		b.mutex.Lock()
		for _, breach := range b.wrong {
			w.Errorf("the %s bystander: %s", b.wire, breach)
		}
		if b.gaps > 0 && !w.abuse.gaps {
			w.Errorf("the %s bystander heard %d gaps", b.wire, b.gaps)
		}
		b.mutex.Unlock()
	}
}

// wantCleanLog holds invariant 5.
func (w *world) wantCleanLog() {
	w.Helper()
	w.mutex.Lock()
	secrets := append([]string{payloadMark}, w.secrets...)
	w.mutex.Unlock()
	lines := w.gateway.lines()
	if seen := logs.Lines(); seen < len(lines) {
		w.Errorf("the watch over all logs saw %d lines, and the gateway logged %d", seen, len(lines))
	}
	for _, line := range lines {
		for _, secret := range secrets {
			if strings.Contains(line, secret) {
				w.Errorf("a line of the log holds a secret or a payload: %.300s", line)
			}
		}
		if !utf8.ValidString(line) || strings.ContainsFunc(line, unicode.IsControl) {
			w.Errorf("a line of the log holds a control character or is no UTF-8: %.300q", line)
		}
	}
}

// longest is the longest that an event of the feed took to a bystander.
func (w *world) longest() (longest time.Duration) {
	for _, b := range w.bystanders {
		b.mutex.Lock()
		longest = max(longest, b.longest)
		b.mutex.Unlock()
	}
	return longest
}
