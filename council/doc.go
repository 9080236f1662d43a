// Package council asks several models to judge one text, at the same time, and records what each
// says as it says it: in a log, from which viewers on any gateway read.
//
// # Story
//
//	Councils.Begin ─ rate, caps ─ the log's first entry (opening) ─ one goroutine a model
//	model:    asker.ask ─ HTTP, an event stream ─ say(text) ─ what it has to tell (speech)
//	recorder: every turn: a chunk a model ─ Callbacks.Append ─ ... ─ verdicts ─ complete
//	viewer:   the gateway's: reads the log from its beginning (Story), then its tail
//
// A council is not held by its viewers. It runs on the gateway that began it and writes to its log;
// whoever watches, there or elsewhere, reads that log, so a slow viewer slows nobody and needs
// nothing here. What is known of a council to others is what its log holds:
//
//	opening     {"council":{"models":[{"model":"gemini","label":"Gemini"},..],"demo":false,"ends":MS}}
//	chunk       {"model":"gemini","chunk":".."}          as often as it takes
//	verdict     {"model":"gemini","score":0.78,"reason":".."}     or
//	            {"model":"gemini","error":".."}
//	complete    {"type":"complete","scores":{..},"mean":..,"spread":..,"times":{..},"errors":{..}}
//
// # States of a council
//
//	            ┌── every model has ended ────────────────────────────┐
//	Begin ──► asking ── Cancel, deadline, unwatched, Close ──► ending ─┴─► complete is in the log
//
// The first reason ends the requests that are still open; each of their models gets an error that
// says why. If the gateway dies there is no complete: whoever finds a log without one past its time
// calls [Councils.Finish].
//
// # Who owns what
//
// [Councils] is safe for use by many goroutines. A run belongs to its recorder; what a model has
// said is handed over under the run's lock. The prompt is nobody's to keep: it goes into the
// requests and nowhere else, above all not into the log or a log line. Keys stand in Settings and
// in the requests' headers; no error, here or from a provider, is handed on with text in it that we
// did not write ourselves.
//
// # Bounds
//
// Councils at once, of all and of one user: Settings.MaxCouncils, MaxPerUser. Starts of one user:
// Settings.PerMinute (GCRA; the users remembered are those of the last minute, at most limitKeysMax).
// The prompt: Settings.MaxPromptBytes. A council: Settings.Deadline; one model: its Timeout. What a
// model says: textBytesMax. One event of its stream: eventBytesMax; all of the stream:
// answerBytesMax. Entries: one a model and turn (turnTime), at most chunkBytesMax of text each; those
// not appended yet, while the broker is away: what the models may say. A council that cannot append
// gives up appendPatience after its deadline.
package council
