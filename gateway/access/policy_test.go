package access

import (
	"bytes"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/gateway/auth"
)

// channelName is a channel for tests, split anew at each question.
type channelName string

func (c channelName) Name() string   { return string(c) }
func (c channelName) Type() string   { return strings.Split(string(c), ":")[0] }
func (c channelName) Parts() int     { return strings.Count(string(c), ":") + 1 }
func (c channelName) Owner() string  { return string(c[strings.LastIndexByte(string(c), ':')+1:]) }
func (c channelName) Wildcard() bool { return strings.HasSuffix(string(c), ":*") }

func newPolicy(t testing.TB, options Options) *Policy {
	t.Helper()
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	policy, err := New(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(policy.Close)
	return policy
}

func user(t testing.TB, name string, channels, publish []string) *auth.Identity {
	t.Helper()
	granted, err := auth.ParsePatterns(channels)
	if err != nil {
		t.Fatal(err)
	}
	publishable, err := auth.ParsePatterns(publish)
	if err != nil {
		t.Fatal(err)
	}
	return &auth.Identity{User: name, Channels: granted, Publish: publishable}
}

func everyAccess() map[string]Namespace {
	return map[string]Namespace{
		"public": {Access: Public, Wildcard: true}, "user": {Access: User, Wildcard: true}, "owner": {Access: Owner, Parts: 3},
		"mine": {Access: Owner, Parts: 2}, "either": {Access: Owner}, "token": {Access: Token, Wildcard: true}, "none": {Access: None, Wildcard: true},
		"hook": {Access: ByWebhook, Wildcard: true, Webhook: &Webhook{URL: "http://127.0.0.1:1/"}},
		"two":  {Access: Public, Parts: 2}, "three": {Access: Public, Parts: 3},
	}
}

func TestDecide(t *testing.T) {
	ada := user(t, "ada", []string{"token:1", "none:*", "job:1"}, nil)
	wide := user(t, "ada", []string{"token:*"}, nil)
	all := user(t, "ada", []string{"*"}, nil)
	for name, test := range map[string]struct {
		identity *auth.Identity
		channel  channelName
		want     Decision
	}{
		"public, anonymous":                {auth.Anonymous(), "public:1", allow()},
		"public, nobody":                   {nil, "public:1", allow()},
		"public, user":                     {ada, "public:1", allow()},
		"public wildcard, anonymous":       {auth.Anonymous(), "public:*", allow()},
		"user, anonymous":                  {auth.Anonymous(), "user:1", deny(NeedsToken)},
		"user, nobody":                     {nil, "user:1", deny(NeedsToken)},
		"user, identity without a name":    {&auth.Identity{}, "user:1", deny(NeedsToken)},
		"user":                             {ada, "user:1", allow()},
		"user wildcard":                    {ada, "user:*", allow()},
		"owner":                            {ada, "owner:1:ada", allow()},
		"owner, another":                   {ada, "owner:1:bob", deny(NotOwner)},
		"owner, longer":                    {ada, "owner:1:ada2", deny(NotOwner)},
		"owner, another case":              {ada, "owner:1:Ada", deny(NotOwner)},
		"owner, anonymous":                 {auth.Anonymous(), "owner:1:ada", deny(NeedsToken)},
		"owner, no name against no name":   {&auth.Identity{}, "owner:1:", deny(NeedsToken)},
		"owner, id taken for a user":       {ada, "owner:ada", deny(WrongParts)},
		"owner, user in the middle":        {ada, "owner:ada:1", deny(NotOwner)},
		"owner, wildcard":                  {user(t, "*", nil, nil), "owner:*", deny(NoWildcard)},
		"owner of two parts":               {ada, "mine:ada", allow()},
		"owner of two parts, three":        {ada, "mine:1:ada", deny(WrongParts)},
		"owner of either":                  {ada, "either:1:ada", allow()},
		"token":                            {ada, "token:1", allow()},
		"token, longer":                    {ada, "token:10", deny(NotGranted)},
		"token, three parts":               {ada, "token:1:ada", deny(NotGranted)},
		"token, anonymous":                 {auth.Anonymous(), "token:1", deny(NeedsToken)},
		"token wildcard without its grant": {ada, "token:*", deny(NotGranted)},
		"token wildcard":                   {wide, "token:*", allow()},
		"token by the wildcard":            {wide, "token:9:x", allow()},
		"token by everything":              {all, "token:*", allow()},
		"none":                             {all, "none:1", deny(Closed)},
		"none, granted":                    {ada, "none:1", deny(Closed)},
		"none, anonymous":                  {auth.Anonymous(), "none:1", deny(NeedsToken)},
		"none wildcard":                    {all, "none:*", deny(Closed)},
		"webhook":                          {ada, "hook:1", Decision{Verdict: Ask}},
		"webhook wildcard":                 {ada, "hook:*", Decision{Verdict: Ask}},
		"webhook, anonymous":               {auth.Anonymous(), "hook:1", deny(NeedsToken)},
		"two of two":                       {nil, "two:1", allow()},
		"three of two":                     {nil, "two:1:2", deny(WrongParts)},
		"two of three":                     {nil, "three:1", deny(WrongParts)},
		"wildcard where there is none":     {nil, "two:*", deny(NoWildcard)},
		"unknown type":                     {all, "job:1", deny(Closed)},
		"unknown type, anonymous":          {nil, "job:1", deny(NeedsToken)},
		"unknown type, wildcard":           {all, "job:*", deny(NoWildcard)},
		"known type in another case":       {nil, "Public:1", deny(NeedsToken)},
	} {
		t.Run(name, func(t *testing.T) {
			policy := newPolicy(t, Options{Namespaces: everyAccess(), Authenticated: true})
			if got := policy.Decide(test.identity, test.channel); got != test.want {
				t.Fatalf("%v of %s: %v %s, want %v %s", test.identity, test.channel, got.Verdict, got.Reason, test.want.Verdict, test.want.Reason)
			}
		})
	}
}

// TestDecideWithoutAuthentication: every channel is open, but namespaces keep their shape.
func TestDecideWithoutAuthentication(t *testing.T) {
	policy := newPolicy(t, Options{Namespaces: everyAccess()})
	for channel, want := range map[channelName]Decision{
		"public:1": allow(), "user:1": allow(), "owner:1:bob": allow(), "token:1": allow(), "none:1": allow(), "hook:1": allow(), "other:1": allow(),
		"token:*": allow(), "owner:*": deny(NoWildcard), "other:*": deny(NoWildcard), "owner:1": deny(WrongParts), "three:1": deny(WrongParts),
	} {
		for _, identity := range []*auth.Identity{nil, auth.Anonymous(), user(t, "ada", nil, nil)} {
			if got := policy.Decide(identity, channel); got != want {
				t.Errorf("%v listens to %s: %v %s", identity, channel, got.Verdict, got.Reason)
			}
			toPublish := want
			if channel.Wildcard() {
				toPublish = deny(NoWildcard)
			}
			if got := policy.DecidePublish(identity, channel); got != toPublish {
				t.Errorf("%v publishes on %s: %v %s", identity, channel, got.Verdict, got.Reason)
			}
		}
	}
	if !policy.AnyPublic() {
		t.Error("nothing is public")
	}
	if got := policy.Ask(t.Context(), nil, channelName("hook:1")); got != allow() {
		t.Errorf("a webhook was asked: %v", got)
	}
}

func TestDecidePublish(t *testing.T) {
	policy := newPolicy(t, Options{Namespaces: everyAccess(), Authenticated: true})
	ada := user(t, "ada", []string{"*"}, []string{"public:1", "none:*"})
	all := user(t, "ada", nil, []string{"*"})
	for name, test := range map[string]struct {
		identity *auth.Identity
		channel  channelName
		want     Decision
	}{
		"granted":                         {ada, "public:1", allow()},
		"longer":                          {ada, "public:10", deny(NotGranted)},
		"granted by type, closed to read": {ada, "none:7", allow()},
		"granted to read only":            {ada, "user:1", deny(NotGranted)},
		"own":                             {ada, "mine:ada", deny(NotGranted)},
		"everything":                      {all, "other:1", allow()},
		"everything, wrong parts":         {all, "three:1", deny(WrongParts)},
		"wildcard":                        {all, "public:*", deny(NoWildcard)},
		"anonymous":                       {auth.Anonymous(), "public:1", deny(NeedsToken)},
		"nobody":                          {nil, "public:1", deny(NeedsToken)},
		"admin is no right to publish":    {&auth.Identity{User: "root", Admin: true}, "public:1", deny(NotGranted)},
	} {
		t.Run(name, func(t *testing.T) {
			if got := policy.DecidePublish(test.identity, test.channel); got != test.want {
				t.Fatalf("%v %s, want %v %s", got.Verdict, got.Reason, test.want.Verdict, test.want.Reason)
			}
		})
	}
}

func TestDecideAllocatesNothing(t *testing.T) {
	policy := newPolicy(t, Options{Namespaces: everyAccess(), Authenticated: true})
	ada := user(t, "ada", []string{"token:1"}, []string{"token:1"})
	channels := []Channel{fixed{"token:1", "token", "1"}, fixed{"owner:1:ada", "owner", "ada"}, fixed{"user:1", "user", "1"}}
	allocations := testing.AllocsPerRun(1000, func() {
		for _, channel := range channels {
			policy.Decide(ada, channel)
			policy.DecidePublish(ada, channel)
		}
	})
	if allocations != 0 {
		t.Fatalf("%v allocations", allocations)
	}
}

// fixed is a channel that allocates nothing when it is asked.
type fixed struct{ name, typ, owner string }

func (f fixed) Name() string   { return f.name }
func (f fixed) Type() string   { return f.typ }
func (f fixed) Parts() int     { return strings.Count(f.name, ":") + 1 }
func (f fixed) Owner() string  { return f.owner }
func (f fixed) Wildcard() bool { return false }

func TestDefaults(t *testing.T) {
	closed, open := newPolicy(t, Options{Authenticated: true}), newPolicy(t, Options{})
	ada := user(t, "ada", []string{"*"}, nil)
	for channel, want := range map[channelName]Decision{
		"alerts:ada": allow(), "alerts:bob": deny(NotOwner), "alerts:1:ada": deny(WrongParts), "job_progress:1": allow(), "video_render:1": allow(),
		"campaign_metrics:1:x": allow(), "other:1": deny(Closed),
	} {
		if got := closed.Decide(ada, channel); got != want {
			t.Errorf("with authentication, %s: %v %s", channel, got.Verdict, got.Reason)
		}
	}
	if closed.AnyPublic() || !open.AnyPublic() {
		t.Error("by default something is public with authentication, or nothing without")
	}
	if got := open.Decide(nil, channelName("other:1")); got != allow() {
		t.Errorf("without authentication, other:1: %s", got.Reason)
	}
	if got := closed.PersonalChannels("ada"); !slices.Equal(got, []string{"alerts:ada"}) {
		t.Errorf("personal channels are %q", got)
	}
	if namespace := closed.Namespace("nothing"); namespace.Mode != Events || namespace.Access != None || !namespace.ClosesOnDenied() {
		t.Errorf("the default namespace is %+v", namespace)
	}
	own := newPolicy(t, Options{Authenticated: true, Namespaces: map[string]Namespace{DefaultType: {Access: Public, OnDenied: ErrorOnDenied}}})
	if !own.AnyPublic() || len(own.PersonalChannels("ada")) != 0 || own.Namespace("alerts").ClosesOnDenied() {
		t.Error("a configured default does not take the place of all defaults")
	}
}

func TestPersonalAndBroadcast(t *testing.T) {
	policy := newPolicy(t, Options{Personal: []string{"alerts", strings.Repeat("t", 128)}, Broadcast: []string{"system:all"}})
	for name, test := range map[string]struct {
		user string
		want int
	}{
		"a word": {"ada", 2}, "an address": {"ada+1@a.example", 2}, "as identity providers write": {"auth0|5f7c", 2},
		"nobody": {"", 0}, "a colon": {"a:b", 0}, "a star": {"*", 0}, "a space": {"a b", 0}, "too long": {strings.Repeat("a", 129), 0}, "another script": {"ädä", 0},
		"too long with the longest type": {strings.Repeat("a", 128), 1},
	} {
		t.Run(name, func(t *testing.T) {
			if got := policy.PersonalChannels(test.user); len(got) != test.want {
				t.Fatalf("%d channels: %q", len(got), got)
			}
		})
	}
	if got := policy.Broadcast(); !slices.Equal(got, []string{"system:all"}) {
		t.Errorf("broadcast is %q", got)
	}
}

// settingErrors takes a joined error apart.
func settingErrors(err error) (all []string) {
	if joined, isJoined := err.(interface{ Unwrap() []error }); isJoined {
		for _, one := range joined.Unwrap() {
			all = append(all, settingErrors(one)...)
		}
		return all
	}
	var setting *SettingError
	if errors.As(err, &setting) {
		return []string{setting.Error()}
	}
	return []string{"no SettingError: " + err.Error()}
}

// wantSettings checks that err has exactly these problems, each given by its beginning.
func wantSettings(t *testing.T, err error, want ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %q", want)
	}
	got := settingErrors(err)
	if len(got) != len(want) {
		t.Fatalf("problems are %q, want %q", got, want)
	}
	for place, problem := range got {
		if !strings.HasPrefix(problem, want[place]) {
			t.Errorf("problem is %q, want %q", problem, want[place])
		}
		if strings.Contains(problem, "hunter2") {
			t.Errorf("the problem holds a password: %q", problem)
		}
	}
}

func TestNewSaysAllThatIsWrong(t *testing.T) {
	hook := func(url string) Namespace { return Namespace{Access: ByWebhook, Webhook: &Webhook{URL: url}} }
	for name, test := range map[string]struct {
		options Options
		want    []string
	}{
		"mode":                {Options{Namespaces: map[string]Namespace{"a": {Mode: "log"}}}, []string{`namespaces.a.mode: "log" is not known; "events" is the only mode`}},
		"access":              {Options{Namespaces: map[string]Namespace{"a": {Access: "everyone"}}}, []string{`namespaces.a.access: "everyone" is not known; use one of public, user, owner, token, none, webhook`}},
		"access missing":      {Options{Authenticated: true, Namespaces: map[string]Namespace{"a": {}}}, []string{"namespaces.a.access: missing"}},
		"parts":               {Options{Namespaces: map[string]Namespace{"a": {Parts: 4}}}, []string{"namespaces.a.parts: 4 is not possible"}},
		"wildcard, sharded":   {Options{Namespaces: map[string]Namespace{"a": {Wildcard: true, Sharded: true}}}, []string{"namespaces.a.wildcard: not with sharded"}},
		"wildcard, owner":     {Options{Namespaces: map[string]Namespace{"a": {Wildcard: true, Access: Owner}}}, []string{"namespaces.a.wildcard: not with access owner"}},
		"on_denied":           {Options{Namespaces: map[string]Namespace{"a": {OnDenied: "ignore"}}}, []string{`namespaces.a.on_denied: "ignore" is not known; use "close" or "error"`}},
		"webhook missing":     {Options{Namespaces: map[string]Namespace{"a": {Access: ByWebhook}}}, []string{"namespaces.a.webhook: access webhook needs webhook.url"}},
		"webhook not needed":  {Options{Namespaces: map[string]Namespace{"a": {Access: User, Webhook: &Webhook{URL: "http://h/"}}}}, []string{"namespaces.a.webhook: has no effect"}},
		"webhook without URL": {Options{Namespaces: map[string]Namespace{"a": hook("")}}, []string{"namespaces.a.webhook.url: not an absolute"}},
		"webhook to a file":   {Options{Namespaces: map[string]Namespace{"a": hook("file:///x")}}, []string{"namespaces.a.webhook.url: not an absolute"}},
		"webhook, password":   {Options{Namespaces: map[string]Namespace{"a": hook("http://u:hunter2@h/")}}, []string{"namespaces.a.webhook.url: holds a user"}},
		"webhook times": {Options{Namespaces: map[string]Namespace{"a": {Access: ByWebhook, Webhook: &Webhook{URL: "http://h/", Timeout: time.Minute, MaxAge: -1}}}}, []string{
			"namespaces.a.webhook.timeout: 1m0s", "namespaces.a.webhook.max_age: -1ns",
		}},
		"type":             {Options{Namespaces: map[string]Namespace{"a:b\n": {}, "__x": {}}}, []string{`namespaces."__x": not a channel type`, `namespaces."a:b\n": not a channel type`}},
		"personal":         {Options{Personal: []string{"a", "a:b"}}, []string{"personal.1: not a channel type"}},
		"personal, parts":  {Options{Namespaces: map[string]Namespace{"a": {Parts: 3}}, Personal: []string{"a"}}, []string{"personal.0: a:USER has 2 parts but the namespace a asks for 3"}},
		"broadcast":        {Options{Broadcast: []string{"a:b", "a", "a:*", "a:b:c:d", "__a:b", "a:" + strings.Repeat("b", 300)}}, []string{"broadcast.1: not a", "broadcast.2: not a", "broadcast.3: not a", "broadcast.4: not a", "broadcast.5: not a"}},
		"broadcast, parts": {Options{Broadcast: []string{"alerts:1:2"}}, []string{"broadcast.0: has 3 parts but the namespace alerts asks for 2"}},
		"several": {Options{Authenticated: true, Namespaces: map[string]Namespace{"b": {Parts: 1, Mode: "state"}, "a": {Access: "x"}}, Personal: []string{""}}, []string{
			"namespaces.a.access", "namespaces.b.mode", "namespaces.b.parts", "namespaces.b.access: missing", "personal.0",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(test.options)
			wantSettings(t, err, test.want...)
		})
	}
}

func TestNewWarns(t *testing.T) {
	for name, test := range map[string]struct {
		options Options
		want    string
	}{
		"personal for others": {Options{Authenticated: true, Namespaces: map[string]Namespace{"a": {Access: User}}, Personal: []string{"a"}}, "can be listened to by others"},
		"owner of either":     {Options{Authenticated: true, Namespaces: map[string]Namespace{"a": {Access: Owner}}}, "set the namespace's parts"},
		"defaults":            {Options{Authenticated: true}, ""},
		"no authentication":   {Options{Namespaces: map[string]Namespace{"a": {Access: Owner}}, Personal: []string{"a"}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			test.options.Logger = slog.New(slog.NewTextHandler(&log, nil))
			newPolicy(t, test.options)
			if test.want == "" && log.Len() > 0 || !strings.Contains(log.String(), test.want) {
				t.Fatalf("the log is %q, want %q", log.String(), test.want)
			}
		})
	}
}

func TestDecode(t *testing.T) {
	namespace, err := Decode("a", map[string]any{
		"mode": "events", "access": "webhook", "parts": 2, "wildcard": true, "sharded": false, "local_first": true, "on_denied": "error",
		"webhook": map[string]any{"url": "https://h/", "timeout": "500ms", "max_age": "1m", "forward_token": true},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := Namespace{
		Mode: Events, Access: ByWebhook, Parts: 2, Wildcard: true, LocalFirst: true, OnDenied: ErrorOnDenied,
		Webhook: &Webhook{URL: "https://h/", Timeout: 500 * time.Millisecond, MaxAge: time.Minute, ForwardToken: true},
	}
	if *namespace.Webhook != *want.Webhook {
		t.Errorf("the webhook is %+v", namespace.Webhook)
	}
	if namespace.Webhook, want.Webhook = nil, nil; namespace != want {
		t.Errorf("the namespace is %+v", namespace)
	}
	for _, number := range []any{2, int64(2), uint64(2), float64(2)} {
		if namespace, err := Decode("a", map[string]any{"parts": number}); err != nil || namespace.Parts != 2 {
			t.Errorf("parts as %T: %v, %v", number, namespace.Parts, err)
		}
	}
}

func TestDecodeSaysAllThatIsWrong(t *testing.T) {
	for name, test := range map[string]struct {
		settings map[string]any
		want     []string
	}{
		"unknown":          {map[string]any{"replay": 1, "acces": "user"}, []string{"namespaces.a.acces: unknown setting; the known ones are access, local_first, mode, on_denied, parts, sharded, webhook, wildcard", "namespaces.a.replay: unknown"}},
		"unknown, unclean": {map[string]any{"a\nb": 1}, []string{`namespaces.a."a\nb": unknown`}},
		"unknown webhook":  {map[string]any{"webhook": map[string]any{"uri": "x"}}, []string{"namespaces.a.webhook.uri: unknown setting; the known ones are forward_token, max_age, timeout, url"}},
		"types": {map[string]any{"access": 1, "mode": true, "parts": "two", "wildcard": "yes", "webhook": "http://h/", "on_denied": nil}, []string{
			"namespaces.a.access: expected a word, such as user", "namespaces.a.mode: expected a word", "namespaces.a.on_denied: expected a word", "namespaces.a.parts: expected a number, such as 2",
			"namespaces.a.webhook: expected settings below it", "namespaces.a.wildcard: expected true or false",
		}},
		"a fraction": {map[string]any{"parts": 2.5}, []string{"namespaces.a.parts: expected a whole number"}},
		"a huge one": {map[string]any{"parts": uint64(1<<32 + 2)}, []string{"namespaces.a.parts: 2147483648 is not possible"}},
		"durations": {map[string]any{"webhook": map[string]any{"timeout": 2, "max_age": "0s", "forward_token": 1, "url": 1}}, []string{
			"namespaces.a.webhook.forward_token: expected true", "namespaces.a.webhook.max_age: expected a duration", "namespaces.a.webhook.timeout: expected a duration", "namespaces.a.webhook.url: expected",
		}},
		"values": {map[string]any{"access": "all"}, []string{`namespaces.a.access: "all" is not known`}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Decode("a", test.settings)
			wantSettings(t, err, test.want...)
		})
	}
}

func TestReasonsAreNamed(t *testing.T) {
	names := map[string]bool{}
	for reason := range ReasonCount {
		names[reason.String()] = true
	}
	if len(names) != int(ReasonCount) {
		t.Fatalf("%d names for %d reasons", len(names), ReasonCount)
	}
	for reason, want := range map[Reason]string{WrongParts: "bad_channel", NoWildcard: "bad_channel", NeedsToken: "unauthorized", NotOwner: "access_denied", WebhookFailed: "access_denied"} {
		if got := reason.Code(); got != want {
			t.Errorf("%s has the code %s, want %s", reason, got, want)
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	policy := newPolicy(b, Options{Namespaces: everyAccess(), Authenticated: true})
	ada := user(b, "ada", []string{"token:1"}, nil)
	var channel Channel = fixed{"token:1", "token", "1"}
	b.ReportAllocs()
	for b.Loop() {
		policy.Decide(ada, channel)
	}
}
