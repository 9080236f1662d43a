// From the text of a wire to messages. Batches and compressed messages are undone here, so nobody
// behind this file knows that there are any.
//
// Who speaks is decided by the wire's own marks, never by a payload: an SSE event's name, and on a
// WebSocket the outer `type` (our sockets always ask for envelopes). A worker that publishes
// {"type":"gap"} is heard as an event.

import { channelOf } from "./ids.js";
import { inflate } from "./inflate.js";
import { type Decoded, tooLarge } from "./intake.js";
import { connectedChannels } from "./ledger.js";
import type { EventMessage, Incoming } from "./types.js";

type Fields = Readonly<Record<string, unknown>>;
/** What the gateway's own words hold is as the protocol says: it is not checked again. */
type Text = string | undefined;

/** The names under which the gateway speaks on an SSE stream, and `message`, under which anybody does. */
export const SSE_WORDS: readonly string[] =
  "message connected gap replayed deleted complete server_error batch compressed".split(" ");

/** The words that the gateway keeps for itself: no worker's event is called so. */
const RESERVED = new Set([
  ...SSE_WORDS,
  ..."subscribed unsubscribed published pong error event open refresh".split(" "),
]);

export interface Decoder {
  /** One SSE event. */
  sse(name: string, id: Text, text: string): Decoded;
  /** One WebSocket message. */
  envelope(text: string): Decoded;
}

/** Decodes one stream, whose messages are `bytesMax` long at most; it throws {@link tooLarge}. */
export function createDecoder(bytesMax: number): Decoder {
  /** The stream's only channel, for events that tell none. */
  let only: Text;

  function parse(text: string): unknown {
    if (text.length > bytesMax) throw tooLarge(bytesMax);
    try {
      return JSON.parse(text);
    } catch {
      return text;
    }
  }

  async function inflated(channel: Text, id: Text, message: Fields): Promise<Incoming[]> {
    if (message["encoding"] !== "gzip") throw new Error(`unknown encoding ${message["encoding"]}`);
    return [event(channel, id, parse(await inflate(String(message["data"]), bytesMax)))];
  }

  function word(type: string, channel: Text, id: Text, message: Fields): Decoded {
    const { data } = message;
    switch (type) {
      case "event": {
        const payload = fields(data);
        const asItIs = [event(channel, id, data)];
        // It may be compressed inside of its envelope. But a worker may have written the same: what
        // does not inflate is left as it is.
        return payload["type"] === "compressed" ? inflated(channel, id, payload).catch(() => asItIs) : asItIs;
      }
      case "batch": {
        const events: unknown[] = Array.isArray(message["events"]) ? message["events"] : [];
        // The batch's id is that of its last event.
        return events.map((one, index) => event(channel, (index === events.length - 1 && id) || "", one));
      }
      case "compressed":
        return inflated(channel, id, message);
      case "gap":
        return [{ kind: type, channel, id, after: message["after"] as Text, reason: String(message["reason"]) }];
      case "deleted":
        return [{ kind: type, channel }];
      case "complete":
        // What an application completes a stream with is its `data`; a council's end says it all itself.
        return [{ kind: type, channel: undefined, data: data ?? message }];
      default:
        return [{ kind: "notice", type, channel, id, data: message }];
    }
  }

  return {
    sse(name, id, text) {
      const data = parse(text);
      const message = fields(data);
      const channel = channelOf(id) ?? only;
      if (name === "message" || !RESERVED.has(name)) return [event(channel, id, data, name)];
      if (name === "connected") {
        const channels = connectedChannels(message);
        only = channels[1] ? undefined : channels[0];
      }
      return word(name, (message["channel"] as Text) ?? channel, id, message);
    },
    envelope(text) {
      const message = fields(parse(text));
      return word(String(message["type"]), message["channel"] as Text, message["id"] as Text, message);
    },
  };
}

function event(channel: Text, id: Text, data: unknown, name?: string): EventMessage {
  return { kind: "event", channel, id, type: name ?? typeOf(data), data };
}

/** The name of an event, by the rule that names it on SSE. */
function typeOf(data: unknown): string {
  const { type } = fields(data);
  return typeof type === "string" && /^[\w.-]{1,64}$/.test(type) && !RESERVED.has(type) ? type : "message";
}

/** Whatever it is, its fields can be asked for. */
function fields(data: unknown): Fields {
  return Object(data);
}
