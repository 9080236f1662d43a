// Package auth answers "who are you": it finds the token that a request carries, verifies it
// (HS256, RS256, ES256, EdDSA; the algorithm is pinned per key by configuration, never chosen by
// the token's header), and gives an [Identity].
//
// It is used on the front desk's goroutines and, for the refresh command, on goroutines of its
// own; never on a loop, because a key set may have to be fetched. No error, log line or metric of
// this package holds a token or a part of one.
package auth
