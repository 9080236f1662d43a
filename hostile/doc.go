// Package hostile does to a gateway what hostile and broken peers do: one test for each case of
// the list of abuse cases, A1 to J4, and for faults of the network, against the real binary.
//
// A case says what it sends, checks what must come back and what must not happen, and names the
// counters that must have counted it. Around every case one harness holds five invariants, from
// two bystanders, an event stream and a WebSocket, that were there before and hear a numbered
// sequence all the while:
//
//  1. the process lives;
//  2. the bystanders hear every event, in order, and the next one within a second of its
//     publication when the case is over;
//  3. descriptors, goroutines and resident memory return to what they were, within the tolerance
//     that the case states;
//  4. the case was counted under the names it gives, and under no other;
//  5. no line of the log, at level debug, holds a token, a cookie, a payload or a control
//     character; nor does one of any other gateway that a case starts.
//
// What nothing from outside can cause, a panic or a clock that jumps, is put into the running gateway
// through its memory (inside_test.go), and its own memory is bounded by a control group
// (memory_test.go): on amd64, and where that is allowed; elsewhere these cases are skipped and say why.
//
// Each case has a gateway of its own, so that cases run beside each other and what is measured is
// theirs. What the list names and no case can show stands in [known], with the reason.
//
// Faults of the network, which the list does not have, are the cases of letter N: what they are about
// lives on a host of its own, a network namespace at the other end of a cable (host_test.go), whose
// packets can be made to vanish. That takes root; without it these cases are skipped and say so.
//
// `go test ./hostile` runs with small crowds. `make hostile` runs the same cases with larger ones,
// one after the other, and writes docs/robustness.md.
package hostile
