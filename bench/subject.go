package bench

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
)

// subject is a realtime server that can be measured. One value serves all measurements, in turn.
type subject interface {
	// name is what it is called in --subjects and in tables.
	name() string
	// about says in a sentence or two what it is and with which settings it runs.
	about() string
	// wires are those that it speaks.
	wires() []Wire
	// missing says why it cannot be measured on this machine, and is empty where it can.
	missing(s *site) string
	// start starts it on a site, which ends it. It listens when start returns.
	start(ctx context.Context, s *site, o startOptions) (*server, error)
}

// startOptions varies how a subject is started.
type startOptions struct {
	// tokens asks for HS256 tokens to be demanded of subscribers, where the subject can.
	tokens bool
	// modes asks for namespaces of states and logs, where the subject keeps such.
	modes bool
	// config is YAML that the subject is given in a file; for ours.
	config string
	// address is HOST:PORT to share with others (SO_REUSEPORT); empty takes a free port alone.
	address string
	// acceptRate bounds the new connections a second, where the subject can; 0: not.
	acceptRate int
	// compress has it compress messages on WebSockets, where it does not anyway.
	compress bool
}

// server is a subject that runs.
type server struct {
	children []*child
	address  string // HOST:PORT for subscribers
	channel  string // format of a channel's name; one %d
	steps    map[Wire][]step
	several  map[Wire][]step // as steps, for streams of several channels; nil where nobody asks for such
	deflated []step          // of a compressed WebSocket; nil where nobody asks for such
	secret   string          // that tokens are signed with; empty for none

	feedAddress string
	dialect     dialect
}

func (s *server) pids() []int {
	pids := make([]int, len(s.children))
	for i, c := range s.children {
		pids[i] = c.pid()
	}
	return pids
}

// plan is a connectPlan for streams of this server.
func (s *server) plan(wire Wire, count int) connectPlan {
	return connectPlan{
		Address: s.address, Wire: wire, Steps: s.steps[wire], Count: count, Channel: s.channel,
		Secret: s.secret, Window: handshakeWindow, Sources: sourceAddresses,
	}
}

const (
	// handshakeWindow is how many handshakes a crowd has under way: enough to keep any server
	// busy, few enough for every server's backlog.
	handshakeWindow = 128
	// sourceAddresses is how many loopback addresses a crowd comes from.
	sourceAddresses = 8
)

// speaking is the server as a publisher sees it who writes keys in place of events.
func (s *server) speaking(to keyspace) *server {
	other := *s
	other.channel, other.dialect = to.channel, to.dialect
	return &other
}

// keyspace is how the channels of a namespace are called, and written to.
type keyspace struct {
	channel string // format of a name; one %d
	dialect dialect
}

// modeKeeper is a subject that can be started with namespaces of states and logs
// ([startOptions].modes): channels that are keys of Redis, as stateKeys and logKeys name them.
type modeKeeper interface{ keepsModes() bool }

// severalTaker is a subject of which one stream can have several channels ([server].several).
type severalTaker interface{ takesSeveral() }

// tokenTaker is a subject that can demand tokens of its subscribers.
type tokenTaker interface{ takesTokens() }

// redisFed is a subject of which several can share one Redis, each event reaching all.
type redisFed interface{ fedByRedis() bool }

// deflater is a subject, other than ours, that can compress the messages of WebSockets.
type deflater interface{ deflates() bool }

// portSharer is a subject of which several processes can share one port.
type portSharer interface{ sharesPort() bool }

// aliveKeeper is a subject that sends something now and then on an idle stream.
type aliveKeeper interface{ keepsAlive() }

// variant is a subject that differs from another in one setting, and is usually asked only where
// that matters.
type variant interface{ mattersFor() []string }

func takesTokens(one subject) bool {
	_, takes := one.(tokenTaker)
	return takes
}

func takesSeveral(one subject) bool {
	_, takes := one.(severalTaker)
	return takes
}

func keepsModes(one subject) bool {
	keeper, is := one.(modeKeeper)
	return is && keeper.keepsModes()
}

func keepsAlive(one subject) bool {
	_, keeps := one.(aliveKeeper)
	return keeps
}

func isMain(one subject) bool {
	v, is := one.(variant)
	return !is || len(v.mattersFor()) == 0
}

func isOurs(one subject) bool { return one.name() == ourName }

// usuallyAsked says whether a subject is asked where nobody named the scenario.
func usuallyAsked(one subject, question *scenario) bool {
	if question.usual != nil && !question.usual(one) {
		return false
	}
	v, _ := one.(variant)
	return isMain(one) || slices.Contains(v.mattersFor(), question.name)
}

func isRedisFed(one subject) bool {
	fed, is := one.(redisFed)
	return is && fed.fedByRedis()
}

func deflates(one subject) bool {
	other, is := one.(deflater)
	return isOurs(one) || is && other.deflates()
}

func sharesPort(one subject) bool {
	sharer, is := one.(portSharer)
	return is && sharer.sharesPort()
}

// subjects gives all subjects, in the order of the tables.
func subjects() []subject {
	return []subject{
		millrace{},
		millrace{memory: true},
		floor{},
		floor{gather: true},
		uwebsockets{},
		nbio{},
		nchan{},
		plain{},
		centrifuge{},
		centrifuge{delay: "1ms"},
		centrifuge{prepared: true},
		centrifugo{},
		mercure{},
	}
}

// SubjectNames lists the names of all subjects, in the order of the tables.
func SubjectNames() []string {
	var names []string
	for _, one := range subjects() {
		names = append(names, one.name())
	}
	return names
}

// pickSubjects gives the subjects of the given names; all where there is none.
func pickSubjects(names []string) ([]subject, error) {
	if len(names) == 0 {
		return subjects(), nil
	}
	var picked []subject
	for _, name := range names {
		found := false
		for _, one := range subjects() {
			if one.name() == name {
				picked, found = append(picked, one), true
			}
		}
		if !found {
			return nil, errOption("there is no subject %q: expected some of %s", name, strings.Join(SubjectNames(), ", "))
		}
	}
	return picked, nil
}

// onPath says why a program cannot be started, and is empty where it can.
func onPath(program, install string) string {
	if _, err := exec.LookPath(program); err != nil {
		return fmt.Sprintf("%s is not on the PATH (%s)", program, install)
	}
	return ""
}
