package access

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/proto"
)

// Access says who may listen to the channels of a namespace.
type Access string

// The kinds of access.
const (
	// Public is everybody, with or without a token.
	Public Access = "public"
	// User is everybody whose token is good.
	User Access = "user"
	// Owner is the user whose id is the last part of the channel's name, byte for byte.
	Owner Access = "owner"
	// Token is whoever's claim "channels" holds the channel, TYPE:* or *.
	Token Access = "token"
	// None is nobody. Personal and broadcast channels still reach their receivers.
	None Access = "none"
	// ByWebhook is whoever the namespace's webhook says yes to.
	ByWebhook Access = "webhook"
)

// OnDenied says what a WebSocket that asked for a channel it may not have is told.
type OnDenied string

const (
	// CloseOnDenied is the error access_denied and then the close 1008. The default.
	CloseOnDenied OnDenied = "close"
	// ErrorOnDenied is the error alone.
	ErrorOnDenied OnDenied = "error"
)

// DefaultType is the key of the namespace for types that have none of their own.
const DefaultType = "default"

// Bounds of a webhook.
const (
	// WebhookTimeoutDefault and WebhookTimeoutMax bound the wait for one answer.
	WebhookTimeoutDefault = 2 * time.Second
	WebhookTimeoutMax     = 30 * time.Second
	// WebhookAgeMax is the longest time that an answer counts.
	WebhookAgeMax = time.Hour
)

// Namespace says what the channels of one type are. The zero value is mode events with the default
// replay, any number of parts, no wildcard; Access has no default where there is authentication.
type Namespace struct {
	// Mode says how workers publish: empty means events. Throttle is not for mode log; Replay,
	// IDField, Batch, Conflate, ConflateBy, Wildcard, Sharded and LocalFirst are for events only.
	Mode Mode `yaml:"mode,omitempty" json:"mode,omitempty"`
	// Access decides who may listen; it has no meaning without authentication.
	Access Access `yaml:"access,omitempty" json:"access,omitempty"`
	// Parts is the number of parts that a channel of this type must have, 2 (TYPE:ID) or
	// 3 (TYPE:ID:USER); 0 allows both. It keeps TYPE:456 from being taken for the channel of user
	// 456 where 456 is the id of something else.
	Parts int `yaml:"parts,omitempty" json:"parts,omitempty"`
	// Wildcard allows subscribing to TYPE:*. Not with Sharded, and not with access owner.
	Wildcard bool `yaml:"wildcard,omitempty" json:"wildcard,omitempty"`
	// Sharded means that workers use SPUBLISH.
	Sharded bool `yaml:"sharded,omitempty" json:"sharded,omitempty"`
	// Replay is what is kept for clients that come back.
	Replay Replay `yaml:"replay,omitempty" json:"replay,omitzero"`
	// MaxLen is about how many of its newest entries a log keeps when something is published
	// through a gateway (XADD MAXLEN ~). Nil: 10,000. 0: no bound. Workers bound their own XADDs.
	// Only with mode log.
	MaxLen *int `yaml:"maxlen,omitempty" json:"maxlen,omitempty"`
	// IDField names a member of the payload, a text or a number that is unique per event, which
	// becomes the event's id CHANNEL/=VALUE: one that every gateway knows.
	IDField string `yaml:"id_field,omitempty" json:"id_field,omitempty"`
	// Throttle is the shortest time between two events of one channel: the newest of an interval
	// is sent at its end. 0: none; else 1 ms to 1 min.
	Throttle time.Duration `yaml:"throttle,omitempty" json:"throttle,omitempty"`
	// Batch gathers the events of a channel for so long and sends them as one. 0: none; else 1 ms
	// to 1 min. Not together with Throttle.
	Batch time.Duration `yaml:"batch,omitempty" json:"batch,omitempty"`
	// Conflate gives a client that lags only the newest event of a channel, instead of a gap.
	Conflate bool `yaml:"conflate,omitempty" json:"conflate,omitempty"`
	// ConflateBy names a member of the payload: a client that lags gets the newest event for each
	// value of it. Needs Conflate.
	ConflateBy string `yaml:"conflate_by,omitempty" json:"conflate_by,omitempty"`
	// Compress says whether events may be made shorter for clients that take them compressed, which
	// lets whoever sees how long they are guess at what they hold. Nil: see [Policy.Compresses].
	Compress *bool `yaml:"compress,omitempty" json:"compress,omitempty"`
	// CompressOver is the size in bytes above which a payload is compressed for a client that came
	// with ?compress=envelope. Nil: 1024.
	CompressOver *int `yaml:"compress_over,omitempty" json:"compress_over,omitempty"`
	// Webhook must be there with access webhook, and only then.
	Webhook *Webhook `yaml:"webhook,omitempty" json:"webhook,omitempty"`
	// LocalFirst gives own events to own subscribers before Redis has them.
	LocalFirst bool `yaml:"local_first,omitempty" json:"local_first,omitempty"`
	// OnDenied: empty means close.
	OnDenied OnDenied `yaml:"on_denied,omitempty" json:"on_denied,omitempty"`

	internal bool // the gateway's own: nobody may ask for its channels, with or without authentication
}

// The types of channels that are the gateway's own: nobody may ask for one or publish on it, and no
// namespace may have that name.
const (
	// CouncilType is that of the logs in which is kept what councils say.
	CouncilType = "council"
	// CouncilsType is that of the channel by which gateways talk about their councils.
	CouncilsType = "councils"
)

// internalNamespaces are those of the types that are the gateway's own.
var internalNamespaces = map[string]*Namespace{
	CouncilType:  {Mode: Log, Access: None, OnDenied: ErrorOnDenied, MaxLen: new(0), internal: true},
	CouncilsType: {Mode: Events, Access: None, OnDenied: ErrorOnDenied, Replay: Replay{Size: new(0)}, internal: true},
}

// IsInternal reports whether channels of a type are the gateway's own.
func IsInternal(typ string) bool { return internalNamespaces[typ] != nil }

// Webhook says where to ask whether a user may listen to a channel (see [Policy.Ask]).
type Webhook struct {
	// URL is the http or https address that gets the POST. It may not hold a user or a password.
	URL string `yaml:"url" json:"url"`
	// Timeout bounds one question, the wait for a free slot included. Zero: 2 s. At most 30 s.
	Timeout time.Duration `yaml:"timeout,omitempty" json:"timeout,omitempty"`
	// MaxAge bounds how long an answer counts, whatever its Cache-Control says. Zero: 1 h, which
	// is also the most.
	MaxAge time.Duration `yaml:"max_age,omitempty" json:"max_age,omitempty"`
	// ForwardToken sends the user's token along as Authorization: Bearer. Off by default: the
	// webhook could act as the user elsewhere.
	ForwardToken bool `yaml:"forward_token,omitempty" json:"forward_token,omitempty"`
}

// SettingError says what is wrong with one setting. Path leads to it in the file, with dots
// between the keys: namespaces.alerts.webhook.url, or personal[0] for the first of a list.
type SettingError struct {
	Path string
	// Message says what is wrong and what would be right, without the path.
	Message string
}

// Error gives path and message.
func (e *SettingError) Error() string { return e.Path + ": " + e.Message }

// Validate says all that is wrong with the namespace of the type name ("default" included), as
// joined [*SettingError]s, or nil. Whether access may be left out is for [New] to say.
func (n *Namespace) Validate(name string) error {
	var problems []error
	wrong := complain(func(key, format string, arguments ...any) {
		problems = append(problems, settingError(name, key, format, arguments...))
	})
	if name != DefaultType && !isType(name) {
		wrong("", "not a channel type; a type has 1 to 128 of the characters A-Z a-z 0-9 _ . @ = | + - and does not start with __")
	}
	if IsInternal(name) {
		wrong("", "channels of this type are the gateway's own, for its councils; choose another name")
	}
	n.validateMode(wrong)
	n.validateBounds(wrong)
	known := []Access{Public, User, Owner, Token, None, ByWebhook}
	if n.Access != "" && !slices.Contains(known, n.Access) {
		wrong("access", "%q is not known; use one of %s", n.Access, listOf(known))
	}
	if n.Parts != 0 && n.Parts != 2 && n.Parts != 3 {
		wrong("parts", "%d is not possible; use 2 (TYPE:ID), 3 (TYPE:ID:USER), or leave it out for both", n.Parts)
	}
	if n.Wildcard && n.Sharded {
		wrong("wildcard", "not with sharded: Redis has no pattern subscription for SPUBLISH; turn one of them off")
	}
	if n.Wildcard && n.Access == Owner {
		wrong("wildcard", "not with access owner: TYPE:* has no owner; turn it off or use access token")
	}
	if n.OnDenied != "" && n.OnDenied != CloseOnDenied && n.OnDenied != ErrorOnDenied {
		wrong("on_denied", "%q is not known; use %q or %q", n.OnDenied, CloseOnDenied, ErrorOnDenied)
	}
	if n.Access == ByWebhook && n.Webhook == nil {
		wrong("webhook", "access webhook needs webhook.url, the address to ask")
	}
	if n.Access != ByWebhook && n.Webhook != nil {
		wrong("webhook", "has no effect with access %q; use access webhook or take it out", n.Access)
	}
	if n.Webhook != nil {
		problems = append(problems, n.Webhook.validate(name)...)
	}
	return errors.Join(problems...)
}

func (w *Webhook) validate(name string) (problems []error) {
	address, err := url.Parse(w.URL)
	switch {
	case err != nil || (address.Scheme != "http" && address.Scheme != "https") || address.Host == "":
		problems = append(problems, settingError(name, "webhook.url", "not an absolute http or https URL; write https://HOST/PATH"))
	case address.User != nil:
		problems = append(problems, settingError(name, "webhook.url", "holds a user or password, which would reach logs; take it out"))
	}
	if w.Timeout < 0 || w.Timeout > WebhookTimeoutMax {
		problems = append(problems, settingError(name, "webhook.timeout", "%v is not possible; use more than 0 and at most %v", w.Timeout, WebhookTimeoutMax))
	}
	if w.MaxAge < 0 || w.MaxAge > WebhookAgeMax {
		problems = append(problems, settingError(name, "webhook.max_age", "%v is not possible; use more than 0 and at most %v", w.MaxAge, WebhookAgeMax))
	}
	return problems
}

// ClosesOnDenied reports whether a WebSocket is closed when it asks for what it may not have.
func (n *Namespace) ClosesOnDenied() bool { return n.OnDenied != ErrorOnDenied }

// completed gives a copy with the defaults filled in that shares nothing with n.
func (n Namespace) completed() *Namespace {
	n.completeMode()
	n.Access = cmp.Or(n.Access, None)
	n.OnDenied = cmp.Or(n.OnDenied, CloseOnDenied)
	if n.Compress != nil {
		n.Compress = new(*n.Compress)
	}
	if n.CompressOver == nil {
		n.CompressOver = new(CompressOverDefault)
	} else {
		n.CompressOver = new(*n.CompressOver)
	}
	if n.Webhook != nil {
		webhook := *n.Webhook
		webhook.Timeout = cmp.Or(webhook.Timeout, WebhookTimeoutDefault)
		webhook.MaxAge = cmp.Or(webhook.MaxAge, WebhookAgeMax)
		n.Webhook = &webhook
	}
	return &n
}

// Defaults gives the namespaces that exist where none are configured, in a map that is the
// caller's: alerts (owner), job_progress, video_render and campaign_metrics (user), and the
// default for every other type, which is open without authentication and closed with it. All have
// mode events, but for the demonstration, whose workers show the others too: there campaign_metrics
// and jobs (user) are states and job_progress is a log, a short one, since its jobs come again and
// again.
func Defaults(authenticated, demo bool) map[string]Namespace {
	namespaces := map[string]Namespace{
		"alerts":           {Mode: Events, Access: Owner, Parts: 2},
		"job_progress":     {Mode: Events, Access: User},
		"video_render":     {Mode: Events, Access: User},
		"campaign_metrics": {Mode: Events, Access: User},
		DefaultType:        defaultNamespace(authenticated),
	}
	if demo {
		namespaces["job_progress"] = Namespace{Mode: Log, Access: User, MaxLen: new(1000)}
		namespaces["campaign_metrics"] = Namespace{Mode: State, Access: User}
		namespaces["jobs"] = Namespace{Mode: State, Access: User}
	}
	return namespaces
}

func defaultNamespace(authenticated bool) Namespace {
	if authenticated {
		return Namespace{Mode: Events, Access: None}
	}
	return Namespace{Mode: Events, Access: Public}
}

func settingError(name, key, format string, arguments ...any) *SettingError {
	path := "namespaces." + printable(name)
	if key != "" {
		path += "." + key
	}
	return &SettingError{Path: path, Message: fmt.Sprintf(format, arguments...)}
}

// printable keeps a name that is none from breaking a line or filling a page.
func printable(name string) string {
	if isType(name) {
		return name
	}
	return fmt.Sprintf("%.40q", name)
}

// isType reports whether name can be the type of a channel.
func isType(name string) bool {
	_, err := proto.NewChannel(name, "x", "")
	return err == nil
}

func listOf[T ~string](values []T) string {
	texts := make([]string, len(values))
	for place, value := range values {
		texts[place] = string(value)
	}
	return strings.Join(texts, ", ")
}
