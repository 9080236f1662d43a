// Package access answers "may you": it knows the namespaces (what a channel's type means), and
// decides whether an identity may listen to or publish on a channel.
//
// [Policy.Decide] is pure and fast and may be called on a loop. Where the answer lies with a
// webhook it says Ask, and [Policy.Ask] gets the answer on a goroutine of the caller's: one
// flight per question, a deadline, no redirects, closed on failure, cached for the answer's own
// max-age.
package access
