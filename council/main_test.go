package council

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

	"github.com/millrace/millrace/internal/leaktest"
)

// The keys and the prompt of these tests, which nothing that is told, logged or appended may hold.
const (
	testKey    = "sk-test-0123456789-never-to-be-seen"
	testPrompt = "Zebra-striped umbrellas at 12 euros each."
)

// TestMain fails for goroutines and descriptors left behind, and for a secret in a log line.
func TestMain(m *testing.M) {
	// Many tests wait for a time to pass, which takes no processor.
	_ = flag.Set("test.parallel", "8")
	flag.Parse() // what the command line says comes last
	slog.SetDefault(slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug})))
	watch := leaktest.Begin()
	os.Exit(watch.End(m.Run(), logged.check))
}

// loggedLines keeps what is logged. Safe for use by many goroutines.
type loggedLines struct {
	mutex sync.Mutex
	text  bytes.Buffer
}

var logged loggedLines

func (l *loggedLines) Write(line []byte) (int, error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.text.Write(line)
}

func (l *loggedLines) check() error {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	for _, secret := range []string{testKey, testPrompt, "Zebra"} {
		if strings.Contains(l.text.String(), secret) {
			return fmt.Errorf("a log line holds %q", secret)
		}
	}
	return nil
}

// shelf keeps logs as a broker does. Safe for use by many goroutines.
type shelf struct {
	mutex   sync.Mutex
	logs    map[string][][]byte
	kept    map[string]time.Duration
	watched bool
	// broken, where set, is asked before each append: whether it is carried out, and what it says.
	broken func(attempt int) (carriedOut bool, err error)
	tries  int
	failed map[string]Kind // by model
	causes []error
}

func newShelf() *shelf {
	return &shelf{logs: map[string][][]byte{}, kept: map[string]time.Duration{}, failed: map[string]Kind{}, watched: true}
}

func (s *shelf) callbacks() Callbacks {
	return Callbacks{
		Append: func(_ context.Context, log string, entries [][]byte, keep time.Duration) error {
			s.mutex.Lock()
			defer s.mutex.Unlock()
			s.tries++
			if s.broken != nil {
				if carriedOut, err := s.broken(s.tries); !carriedOut {
					return err
				} else if err != nil {
					s.logs[log] = append(s.logs[log], entries...)
					return err
				}
			}
			s.logs[log] = append(s.logs[log], entries...)
			if keep > 0 {
				s.kept[log] = keep
			}
			return nil
		},
		Read: func(_ context.Context, log string) (*Story, error) { return s.story(log), nil },
		Watched: func(string) bool {
			s.mutex.Lock()
			defer s.mutex.Unlock()
			return s.watched
		},
		Failed: func(model string, kind Kind, cause error) {
			s.mutex.Lock()
			defer s.mutex.Unlock()
			s.failed[model] = kind
			s.causes = append(s.causes, cause)
		},
	}
}

func (s *shelf) entries(log string) [][]byte {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return append([][]byte(nil), s.logs[log]...)
}

func (s *shelf) story(log string) *Story {
	story := &Story{}
	for _, entry := range s.entries(log) {
		story.Read(entry)
	}
	return story
}

func (s *shelf) watch(watched bool) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.watched = watched
}
