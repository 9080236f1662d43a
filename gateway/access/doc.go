// Package access answers "may you": it knows the namespaces (what a channel's type means), and
// decides whether an identity may listen to or publish on a channel.
//
// # Story
//
// A [Policy] is made once from the settings ([New] says all that is wrong with them at once) and
// never changes. [Policy.Decide] is pure and fast and may be called on a loop. Where the answer
// lies with a webhook it says [Ask], and [Policy.Ask] gets the answer on a goroutine of the
// caller's: one flight per question, a deadline, no redirects, closed on failure, cached for the
// answer's own max-age.
//
// Without authentication every channel is open to everybody; what remains is the shape that a
// namespace gives its channels (parts, wildcard). Everything here fails closed: a zero [Decision]
// denies, and so does a type that nobody configured once there is authentication.
package access
