// Package auth answers "who are you": it finds the token that a request carries, verifies it
// (HS256, RS256, ES256, EdDSA; the algorithm is pinned per key by configuration, never chosen by
// the token's header), and gives an [Identity]. It also answers the questions about a request that
// come before any token: may this page's origin talk to us, and which address does it come from.
//
// # Story
//
// A request's way through the package is [FromRequest] (which token), [CheckOrigin] (may a page of
// this origin use it), [Verifier.Verify] (is it good). Where no authentication is configured,
// [Guard.Check] takes the place of all three and keeps web pages out of a gateway that trusts its
// machine. Every refusal is a [*Refusal] with one [Reason]: the reason is for the log and the
// counter, the client only learns its [Refusal.Code] and, of a bad token, nothing but
// "unauthorized".
//
// # Who runs it
//
// It is used on the front desk's goroutines and, for the refresh command, on goroutines of its
// own; never on a loop, because a key set may have to be fetched. What a loop may call says so:
// [Patterns.Match], [Verifier.Trusted] and the fields of an [Identity]. No error, log line or
// metric of this package holds a token or a part of one, and an Identity or a Credential that is
// printed by mistake hides what it holds.
package auth
