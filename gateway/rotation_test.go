package gateway_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/millrace/millrace/gateway"
	"github.com/millrace/millrace/proto"
)

// keyHost publishes a key set of one key.
type keyHost struct {
	*httptest.Server
	set atomic.Value // string
}

func startKeyHost(t testing.TB) *keyHost {
	h := &keyHost{}
	h.set.Store(`{"keys":[]}`)
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(h.set.Load().(string)))
	}))
	t.Cleanup(h.Close)
	return h
}

// rotate publishes a new key instead of the one before, and gives a token of user 456 signed by it.
func (h *keyHost) rotate(t testing.TB, keyID string) (token string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	h.set.Store(fmt.Sprintf(`{"keys":[{"kty":"EC","crv":"P-256","kid":%q,"x":%q,"y":%q}]}`, keyID, encode(point[1:33]), encode(point[33:])))
	unsigned := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{"sub": "456"})
	unsigned.Header["kid"] = keyID
	if token, err = unsigned.SignedString(key); err != nil {
		t.Fatal(err)
	}
	kept.hide(token)
	return token
}

// TestRotatedKey: the streams of a key that is no longer in the key set end at their next sign of
// life; those of its successor, and a stream that was refreshed by it, live on.
func TestRotatedKey(t *testing.T) {
	t.Parallel()
	host := startKeyHost(t)
	old := host.rotate(t, "old")
	h := serveWith(t, gateway.Options{Auth: gateway.AuthOptions{JWKSURL: host.URL}},
		gateway.Timings{KeepAlive: 2 * time.Second, Heartbeat: 2 * time.Second})
	open := func(w wire, token string) *stream {
		return h.open(t, w, visit{channels: []string{"job_progress:1"}, header: []string{bearer(token)}})
	}
	socket, events, refreshed := open(raw, old), open(sse, old), open(raw, old)
	fresh := host.rotate(t, "new")
	successor := open(raw, fresh) // by a key that is not known yet: the key set is fetched
	refreshed.command(t, `{"type":"refresh","token":"`+fresh+`","ref":1}`)
	refreshed.wordWith(t, "refresh", "ref=1")
	socket.ends(t, proto.ClosePolicy, "Token expired")
	events.wordWith(t, "server_error", "code=token_expired")
	successor.alive(t)
	refreshed.alive(t)
}
