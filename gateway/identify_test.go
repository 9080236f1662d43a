package gateway

import (
	"strings"
	"testing"

	"github.com/millrace/millrace/gateway/access"
	"github.com/millrace/millrace/proto"
)

// TestDenialSaysWhy: whoever configured the gateway, or asked for the token, learns what to mend.
func TestDenialSaysWhy(t *testing.T) {
	channel, err := proto.ParseChannel("orders:7")
	if err != nil {
		t.Fatal(err)
	}
	for reason, want := range map[access.Reason]string{
		access.WrongParts:    "type orders have another number of parts",
		access.NoWildcard:    "type orders cannot be had as a wildcard",
		access.NeedsToken:    "orders:7 needs a token",
		access.NotOwner:      "orders:7 is not yours",
		access.NotGranted:    "orders:7 is not in the claim channels of your token",
		access.Closed:        "type orders are open to nobody",
		access.WebhookDenied: "orders:7 is not yours",
	} {
		if got := denial(reason, channel); !strings.Contains(got, want) {
			t.Errorf("reason %d says %q, want %q", reason, got, want)
		}
	}
}
