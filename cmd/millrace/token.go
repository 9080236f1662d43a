package main

import (
	"fmt"
	"time"

	"github.com/millrace/millrace/gateway/auth"
	"github.com/millrace/millrace/internal/settings"
)

// tokenCommand is `millrace token`. It reads the same settings as the gateway, so that what it
// mints is what a gateway with this configuration accepts.
type tokenCommand struct {
	settings.ConfigSettings `embed:""`
	settings.TokenSettings  `embed:""`

	Sub      string        `name:"sub" required:"" placeholder:"USER" help:"The user's id."`
	Channels []string      `name:"channels" placeholder:"PATTERN" help:"What the user may subscribe to in namespaces with access token: CHANNEL, TYPE:* or *."`
	Publish  []string      `name:"publish" placeholder:"PATTERN" help:"What the user may publish on: CHANNEL, TYPE:* or *."`
	Admin    bool          `name:"admin" help:"Let the user use the admin API."`
	TTL      time.Duration `name:"ttl" default:"1h" placeholder:"DURATION" help:"How long the token is good from now on, such as 90s or 12h; 1h by default."`
}

// Run prints one token and a line end.
func (c *tokenCommand) Run(world *process) error {
	if c.TTL < time.Second || c.TTL%time.Second != 0 {
		return errUsage("--ttl: expected whole seconds, such as 30m or 12h; got %s", c.TTL)
	}
	configured := settings.Default()
	configured.ConfigSettings, configured.TokenSettings = c.ConfigSettings, c.TokenSettings
	loaded := settings.Load(configured, world.given, world.environment)
	keys := loaded.CheckKeys()
	if len(loaded.Problems) > 0 {
		return loaded.Problems
	}
	if len(keys.HMACSecret) == 0 {
		return fmt.Errorf("there is no secret to sign with: set --auth-hmac-secret-file FILE, $MILLRACE_AUTH_HMAC_SECRET, or either in the file of --config; the gateway needs the same one")
	}
	if keys.Placeholder() {
		return settings.ErrPlaceholder
	}
	token, err := auth.Mint(keys.HMACSecret, auth.MintClaims{
		User: c.Sub, UserClaim: loaded.Settings.UserClaim, Channels: c.Channels, Publish: c.Publish, Admin: c.Admin, TTL: c.TTL,
		Audience: loaded.Settings.AuthAudience, Issuer: loaded.Settings.AuthIssuer,
	})
	if err != nil {
		return fmt.Errorf("mint a token: %w", err)
	}
	_, err = fmt.Fprintln(world.stdout, token)
	return err
}
