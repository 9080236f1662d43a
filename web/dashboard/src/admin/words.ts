// What the gateway's short words mean, and what its numbers say together.
import { duration } from "../shared/format.js";
import type { Tone } from "../shared/states.js";
import type { Explanation, Stats, StreamSummary } from "./api.js";

interface Word {
  word: string;
  tone: Tone;
  means: string;
}

const STATES: Record<string, Word> = {
  live: { word: "Live", tone: "good", means: "Gets what its channels bring, as it comes." },
  connecting: { word: "Connecting", tone: "busy", means: "Its first channels are not confirmed yet." },
  beginning: { word: "Beginning", tone: "busy", means: "Waits for what a subscription begins with." },
  resuming: { word: "Resuming", tone: "busy", means: "Gets what it missed while it was away." },
  queued: { word: "Waiting", tone: "warn", means: "Something has waited for over a second; nothing is withheld yet." },
  catching_up: { word: "Catching up", tone: "warn", means: "Was too slow for a log, which is read for it again." },
  conflating: { word: "Conflating", tone: "warn", means: "Is too slow: of a channel only the newest will be sent." },
  dropping: { word: "Dropping", tone: "bad", means: "Is too slow: events are dropped, and a gap will say so." },
};

export function stateOf(state: string): Word {
  return STATES[state] ?? { word: state, tone: "idle", means: "" };
}

const WIRES: Record<string, string> = {
  sse: "SSE",
  sse_plain: "SSE, HTTP/1.0",
  text: "WebSocket",
  envelope: "WebSocket, envelopes",
};

export function wireOf(wire: string): string {
  return WIRES[wire.replace(/_without_id$/, "")] ?? wire;
}

/** wrong_mode → Wrong mode, not_json → Not JSON. */
export function reasonOf(name: string): string {
  const words = name.replaceAll("_", " ").replace("json", "JSON").replace("utf8", "UTF-8");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** The age of a stream, of which the gateway knows whole minutes. */
export function ageOf({ ageMinutes }: Pick<StreamSummary, "ageMinutes">): string {
  return ageMinutes < 1 ? "< 1 min" : duration(ageMinutes * 60).replace(/ 0 (s|min)$/, "");
}

/** From here on a client that takes nothing is said to stand still. */
const STANDS_STILL_MS = 5_000;
/** From here on segments sent again are no accident. */
const RESENT = 20;

/** What the numbers of one stream say together, as docs/operations.md reads them. */
export function diagnosis(stream: Explanation): string {
  const { queue, peer, gapsDue } = stream;
  const owed = gapsDue > 0 ? ` It is owed ${gapsDue === 1 ? "a gap" : `${gapsDue} gaps`}.` : "";
  if (queue.frames === 0) {
    return `${peer.unackedBytes > 0 ? "Nothing waits here; the rest is with the kernel." : "It keeps up: nothing waits."}${owed}`;
  }
  if (peer.progressMs >= STANDS_STILL_MS) {
    return `It stands still: its socket has taken nothing for ${duration(peer.progressMs / 1000)}. Unless it goes on, progress-timeout ends it.${owed}`;
  }
  if (peer.retransmits >= RESENT && peer.unackedBytes > 0) {
    return `The network loses segments: ${peer.retransmits} were sent again.${owed}`;
  }
  return `It takes what it gets, but slower than it comes: a slow reader, or a slow line.${owed}`;
}

/** One sentence on the gateway as a whole. */
export function verdict(stats: Stats): { tone: Tone; word: string; text: string } {
  switch (stats.status) {
    case "healthy":
      return { tone: "good", word: "Healthy", text: `Serving for ${duration(stats.uptimeSeconds)}.` };
    case "draining":
      return {
        tone: "warn",
        word: "Draining",
        text: "This gateway is draining: it takes no new streams, and sends its clients elsewhere.",
      };
    default:
      return {
        tone: "bad",
        word: "Degraded",
        text: `Redis does not deliver${stats.broker.reason ? `: ${stats.broker.reason}` : ""}. Streams stay; what is missed becomes a gap.`,
      };
  }
}
