package hostile

import (
	"crypto/ecdsa"
	"net/http/httptest"
	"slices"
)

// tenant is one of several whose gateways have the same identity provider, or providers that name
// their keys alike.
type tenant struct {
	name   string
	world  *world // at its gateway
	issuer string
	key    *ecdsa.PrivateKey // the one that signs for its users, as "one"
}

// tenants starts a gateway for each of three: acme and bolt have one provider, which signs with one key
// for both; core has another, whose key has the same name.
func (w *world) tenants() []*tenant {
	w.Helper()
	other := &keySet{keys: map[string]*ecdsa.PrivateKey{"one": newKey(w)}}
	all := []*tenant{
		{name: "acme", issuer: "https://id.example/acme", key: w.keySet.keys["one"]},
		{name: "bolt", issuer: "https://id.example/bolt", key: w.keySet.keys["one"]},
		{name: "core", issuer: "https://id.example/acme", key: other.keys["one"]}, // by mistake, or by malice
	}
	for _, one := range all {
		set := w.keySet
		if one.key == other.keys["one"] {
			set = other
		}
		server := httptest.NewServer(set)
		w.Cleanup(server.Close)
		one.world = w.at(start{arguments: []string{"--auth-jwks-url", server.URL + "/keys", "--auth-issuer", one.issuer, "--auth-audience", one.name}}.run(w.T))
	}
	return all
}

// token is one that this tenant's provider signs, with these changes to its claims; nil takes one away.
func (t *tenant) token(w *world, change map[string]any) string {
	claims := claimsOf("alice")
	claims["iss"], claims["aud"] = t.issuer, t.name
	for name, value := range change {
		if claims[name] = value; value == nil {
			delete(claims, name)
		}
	}
	return w.secret(signES(w, t.key, map[string]any{"kid": "one"}, claims))
}

// wantTenantsApart: a token is good at the gateway of its own tenant, and at no other, whatever its
// issuer, its audience and the name of its key are.
func (w *world) wantTenantsApart() {
	all := w.tenants()
	acme, bolt, core := all[0], all[1], all[2]
	for _, one := range all {
		w.within(patience, one.name+"'s own token is believed", func() bool { return one.world.streamStatus(one.token(w, nil)) == 200 })
	}
	tried := 0
	for _, test := range []struct {
		name string
		at   *tenant
		with string
	}{
		{"another tenant's token", bolt, acme.token(w, nil)},
		{"another tenant's issuer, our audience", bolt, acme.token(w, map[string]any{"aud": "bolt"})},
		{"our issuer, another tenant's audience", bolt, acme.token(w, map[string]any{"iss": bolt.issuer})},
		{"no issuer", bolt, bolt.token(w, map[string]any{"iss": nil})},
		{"both issuers", bolt, bolt.token(w, map[string]any{"iss": []string{bolt.issuer, acme.issuer}})},
		{"an issuer that begins as ours", bolt, bolt.token(w, map[string]any{"iss": bolt.issuer + "/more"})},
		{"our issuer with a slash", bolt, bolt.token(w, map[string]any{"iss": bolt.issuer + "/"})},
		{"our issuer in capitals", bolt, bolt.token(w, map[string]any{"iss": "HTTPS://ID.EXAMPLE/BOLT"})},
		{"another provider's key of the same name", core, acme.token(w, map[string]any{"aud": "core"})},
		{"ours, at a provider with a key of the same name", acme, core.token(w, map[string]any{"aud": "acme"})},
	} {
		for range 2 { // the first may fetch the keys anew, and the second finds what that brought
			if status := test.at.world.streamStatus(test.with); status != 401 {
				w.Errorf("%s at the gateway of %s was answered %d, want 401", test.name, test.at.name, status)
			}
		}
		tried++
	}
	slices.Reverse(all)
	for _, one := range all {
		if status := one.world.streamStatus(one.token(w, nil)); status != 200 {
			w.Errorf("afterwards %s's own token was answered %d", one.name, status)
		}
	}
	w.note("of three tenants each gateway believes its own alone, after %d tries with another's key, issuer or audience", tried)
}
