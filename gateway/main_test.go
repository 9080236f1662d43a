package gateway_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/gateway"
	"github.com/millrace/millrace/gateway/auth"
	"github.com/millrace/millrace/internal/leaktest"
	"github.com/millrace/millrace/internal/polltest"
)

// TestMain runs the tests with every log line kept, and then looks for what they left behind:
// goroutines, descriptors, a panic that was caught, a token in a log line.
func TestMain(m *testing.M) {
	if os.Getenv(crowdRole) != "" {
		os.Exit(runCouncilWorld())
	}
	// Many tests wait for a time to pass, which takes no processor.
	_ = flag.Set("test.parallel", "8")
	flag.Parse() // what the command line says comes last
	slog.SetDefault(slog.New(&kept))
	warmUp()
	watch := leaktest.Begin(leaktest.Netpoll())
	os.Exit(watch.End(m.Run(), kept.check))
}

// warmUp makes netpoll start its poller, which lives as long as the process: it is no leak.
func warmUp() {
	g, err := gateway.New(gateway.Options{Listen: "127.0.0.1:0"})
	if err != nil {
		panic(err)
	}
	over, cancel := context.WithCancel(context.Background())
	cancel()
	if err := g.Run(over); err != nil {
		panic(err)
	}
}

// within fails the test unless condition comes to hold in time.
func within(t testing.TB, limit time.Duration, what string, condition func() bool) {
	t.Helper()
	if !polltest.Until(limit, condition) {
		t.Fatalf("not within %v: %s", limit, what)
	}
}

// keptLog is a slog.Handler that keeps every line of every level, and the tokens that none of
// them may hold. Safe for use by many goroutines.
type keptLog struct {
	mutex   sync.Mutex
	text    bytes.Buffer
	secrets map[string]bool
}

var kept keptLog

func (l *keptLog) Enabled(context.Context, slog.Level) bool { return true }

func (l *keptLog) Handle(ctx context.Context, record slog.Record) error {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return slog.NewTextHandler(&l.text, &slog.HandlerOptions{Level: slog.LevelDebug}).Handle(ctx, record)
}

func (l *keptLog) WithAttrs([]slog.Attr) slog.Handler { return l }

func (l *keptLog) WithGroup(string) slog.Handler { return l }

// hide notes a secret of the tests: a token, its signature alone, a payload.
func (l *keptLog) hide(secret string) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if l.secrets == nil {
		l.secrets = make(map[string]bool)
	}
	l.secrets[secret] = true
}

func (l *keptLog) holds(text string) bool {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return bytes.Contains(l.text.Bytes(), []byte(text))
}

// check says what the log of the whole run holds that it must not, or lacks.
func (l *keptLog) check() error {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	for line := range bytes.Lines(l.text.Bytes()) {
		if bytes.Contains(line, []byte("panic")) {
			return fmt.Errorf("a panic was caught and logged: %s", line)
		}
	}
	for secret := range l.secrets {
		if at := bytes.Index(l.text.Bytes(), []byte(secret)); at >= 0 {
			before := bytes.LastIndexByte(l.text.Bytes()[:at], '\n')
			return fmt.Errorf("a log line holds a token or a payload: %.80s", l.text.Bytes()[before+1:])
		}
	}
	return nil
}

// secret signs the tokens of these tests.
var secret = []byte("0123456789abcdef0123456789abcdef")

// mint makes a token that no log line may hold.
func mint(t testing.TB, claims auth.MintClaims) string {
	t.Helper()
	token, err := auth.Mint(secret, claims)
	if err != nil {
		t.Fatal(err)
	}
	kept.hide(token)
	kept.hide(token[strings.LastIndexByte(token, '.')+1:])
	return token
}

// mintFor makes a token of a user that grants nothing more.
func mintFor(t testing.TB, user string) string { return mint(t, auth.MintClaims{User: user}) }
