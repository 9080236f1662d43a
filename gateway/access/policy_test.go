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
	"github.com/millrace/millrace/proto"
)

// channel makes one of a name that is known to be good.
func channel(name string) proto.Channel {
	made, err := proto.ParseChannel(name)
	if err != nil {
		panic(err)
	}
	return made
}

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
		channel  string
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
		"owner, no name":                   {&auth.Identity{}, "owner:1:x", deny(NeedsToken)},
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
		"the gateway's own":                {all, "council:1:ada", deny(Closed)},
		"the gateway's own, anonymous":     {nil, "councils:all", deny(Closed)},
		"the gateway's own, wildcard":      {all, "council:*", deny(NoWildcard)},
	} {
		t.Run(name, func(t *testing.T) {
			policy := newPolicy(t, Options{Namespaces: everyAccess(), Authenticated: true})
			if got := policy.Decide(test.identity, channel(test.channel)); got != test.want {
				t.Fatalf("%v of %s: %v %s, want %v %s", test.identity, test.channel, got.Verdict, got.Reason, test.want.Verdict, test.want.Reason)
			}
		})
	}
}

// TestDecideWithoutAuthentication: every channel is open, but namespaces keep their shape.
func TestDecideWithoutAuthentication(t *testing.T) {
	policy := newPolicy(t, Options{Namespaces: everyAccess()})
	for name, want := range map[string]Decision{
		"public:1": allow(), "user:1": allow(), "owner:1:bob": allow(), "token:1": allow(), "none:1": allow(), "hook:1": allow(), "other:1": allow(),
		"token:*": allow(), "owner:*": deny(NoWildcard), "other:*": deny(NoWildcard), "owner:1": deny(WrongParts), "three:1": deny(WrongParts),
		"council:1": deny(Closed), "council:1:ada": deny(Closed), "councils:all": deny(Closed), "council:*": deny(NoWildcard),
	} {
		for _, identity := range []*auth.Identity{nil, auth.Anonymous(), user(t, "ada", nil, nil)} {
			if got := policy.Decide(identity, channel(name)); got != want {
				t.Errorf("%v listens to %s: %v %s", identity, name, got.Verdict, got.Reason)
			}
			toPublish := want
			if channel(name).Wildcard() {
				toPublish = deny(NoWildcard)
			}
			if got := policy.DecidePublish(identity, channel(name)); got != toPublish {
				t.Errorf("%v publishes on %s: %v %s", identity, name, got.Verdict, got.Reason)
			}
		}
	}
	if !policy.AnyPublic() {
		t.Error("nothing is public")
	}
	if got := policy.Ask(t.Context(), nil, channel("hook:1")); got != allow() {
		t.Errorf("a webhook was asked: %v", got)
	}
}

func TestDecidePublish(t *testing.T) {
	policy := newPolicy(t, Options{Namespaces: everyAccess(), Authenticated: true})
	ada := user(t, "ada", []string{"*"}, []string{"public:1", "none:*"})
	all := user(t, "ada", nil, []string{"*"})
	for name, test := range map[string]struct {
		identity *auth.Identity
		channel  string
		want     Decision
	}{
		"granted":                         {ada, "public:1", allow()},
		"longer":                          {ada, "public:10", deny(NotGranted)},
		"granted by type, closed to read": {ada, "none:7", allow()},
		"granted to read only":            {ada, "user:1", deny(NotGranted)},
		"own":                             {ada, "mine:ada", deny(NotGranted)},
		"everything":                      {all, "other:1", allow()},
		"everything, the gateway's own":   {all, "council:1", deny(Closed)},
		"everything, wrong parts":         {all, "three:1", deny(WrongParts)},
		"wildcard":                        {all, "public:*", deny(NoWildcard)},
		"anonymous":                       {auth.Anonymous(), "public:1", deny(NeedsToken)},
		"nobody":                          {nil, "public:1", deny(NeedsToken)},
		"admin is no right to publish":    {&auth.Identity{User: "root", Admin: true}, "public:1", deny(NotGranted)},
	} {
		t.Run(name, func(t *testing.T) {
			if got := policy.DecidePublish(test.identity, channel(test.channel)); got != test.want {
				t.Fatalf("%v %s, want %v %s", got.Verdict, got.Reason, test.want.Verdict, test.want.Reason)
			}
		})
	}
}

func TestDecideAllocatesNothing(t *testing.T) {
	policy := newPolicy(t, Options{Namespaces: everyAccess(), Authenticated: true})
	ada := user(t, "ada", []string{"token:1"}, []string{"token:1"})
	channels := []proto.Channel{channel("token:1"), channel("owner:1:ada"), channel("user:1"), channel("token:*")}
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

func TestDefaults(t *testing.T) {
	closed, open := newPolicy(t, Options{Authenticated: true}), newPolicy(t, Options{})
	ada := user(t, "ada", []string{"*"}, nil)
	for name, want := range map[string]Decision{
		"alerts:ada": allow(), "alerts:bob": deny(NotOwner), "alerts:1:ada": deny(WrongParts), "job_progress:1": allow(), "video_render:1": allow(),
		"campaign_metrics:1:x": allow(), "other:1": deny(Closed),
	} {
		if got := closed.Decide(ada, channel(name)); got != want {
			t.Errorf("with authentication, %s: %v %s", name, got.Verdict, got.Reason)
		}
	}
	if closed.AnyPublic() || !open.AnyPublic() {
		t.Error("by default something is public with authentication, or nothing without")
	}
	if got := open.Decide(nil, channel("other:1")); got != allow() {
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

// wantSettings checks that err has exactly these problems, each given by its beginning.
func wantSettings(t *testing.T, err error, want ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %q", want)
	}
	got := problemsOf(err)
	if len(got) != len(want) {
		t.Fatalf("problems are %q, want %q", got, want)
	}
	for place, setting := range got {
		problem := setting.Error()
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
		"mode":                {Options{Namespaces: map[string]Namespace{"a": {Mode: "logs"}}}, []string{`namespaces.a.mode: "logs" is not known; use one of events, log, state`}},
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
		"type": {Options{Namespaces: map[string]Namespace{"a:b\n": {}, "__x": {}}}, []string{`namespaces."__x": not a channel type`, `namespaces."a:b\n": not a channel type`}},
		"the gateway's own": {Options{Namespaces: map[string]Namespace{"council": {}, "councils": {}}, Personal: []string{"council"}, Broadcast: []string{"councils:all"}}, []string{
			"namespaces.council: channels of this type are the gateway's own", "namespaces.councils: channels of this type", "personal[0]: the gateway's own type", "broadcast[0]: the gateway's own type",
		}},
		"personal":         {Options{Personal: []string{"a", "a:b"}}, []string{"personal[1]: not a channel type"}},
		"personal, parts":  {Options{Namespaces: map[string]Namespace{"a": {Parts: 3}}, Personal: []string{"a"}}, []string{"personal[0]: a:USER has 2 parts but the namespace a asks for 3"}},
		"broadcast":        {Options{Broadcast: []string{"a:b", "a", "a:*", "a:b:c:d", "__a:b", "a:" + strings.Repeat("b", 300)}}, []string{"broadcast[1]: bad channel", "broadcast[2]: TYPE:* is no channel", "broadcast[3]: bad channel", "broadcast[4]: bad channel", "broadcast[5]: bad channel"}},
		"broadcast, parts": {Options{Broadcast: []string{"alerts:1:2"}}, []string{"broadcast[0]: has 3 parts but the namespace alerts asks for 2"}},
		"several": {Options{Authenticated: true, Namespaces: map[string]Namespace{"b": {Parts: 1, Mode: "stat"}, "a": {Access: "x"}}, Personal: []string{""}}, []string{
			"namespaces.a.access", "namespaces.b.mode", "namespaces.b.parts", "namespaces.b.access: missing", "personal[0]",
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
	asked := channel("token:1")
	b.ReportAllocs()
	for b.Loop() {
		policy.Decide(ada, asked)
	}
}

// problemsOf takes apart the error of New or Namespace.Validate, in the order of the settings.
func problemsOf(err error) []*SettingError {
	var problems []*SettingError
	if joined, several := err.(interface{ Unwrap() []error }); several {
		for _, one := range joined.Unwrap() {
			problems = append(problems, problemsOf(one)...)
		}
		return problems
	}
	if one := (*SettingError)(nil); errors.As(err, &one) {
		problems = append(problems, one)
	}
	return problems
}
