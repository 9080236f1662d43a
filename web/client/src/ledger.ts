import { eventOf } from "./ids.js";
import type { EventMessage, Incoming } from "./types.js";

/**
 * How many events are remembered, to know them when they are replayed. A replay goes back for as
 * long as a gateway's read horizon lags, a second or two.
 */
const SEEN_MAX = 4_096;
/** How many channels are kept; a wildcard may bring any number of them. */
const CHANNELS_MAX = SEEN_MAX;

interface Channel {
  /** Events were flowing: what comes while they are not is missed. */
  joined?: boolean;
  /** A new connection was made and the gateway has not said `replayed` yet: what was seen may come again. */
  replaying?: boolean;
  /** The position to go on from. */
  id?: string;
  /** The newest value of a `state` channel: an event without id. */
  value?: EventMessage | undefined;
}

/** A ledger as one tab hands it to another. */
export interface LedgerPage {
  readonly lastEventId: string | undefined;
  readonly channels: ReadonlyMap<string, Readonly<Channel>>;
}

/**
 * The book of what has arrived: the position on each channel to go on from, what to drop when it is
 * replayed, and the value of each `state` channel, for those who come later. It outlives connections.
 */
export interface Ledger {
  /** Enters a message; false if it had arrived before and is to be dropped. */
  accept(message: Incoming): boolean;
  /** A new connection begins. */
  resume(): void;
  /** The newest id of all, which is the position of an SSE stream. */
  lastEventId(): string | undefined;
  /** Where to go on from on a channel. */
  position(channel: string): string | undefined;
  /** Sets where a channel begins that neither flows yet nor has a position. */
  begin(channel: string, since: string): void;
  /** Whether a new connection can't know what this channel missed: it was flowing, and left no position. */
  isLost(channel: string): boolean;
  value(channel: string): EventMessage | undefined;
  /** Nobody listens to the channel any more. */
  forget(channel: string): void;
  page(): LedgerPage;
  /**
   * Takes over from the book of the tab that has the connection, and gives what this one has not
   * heard: gaps on channels that were flowing here and have moved on, and values that differ. A
   * channel that did not flow there was handed to it with our position ({@link begin}): it is replayed.
   */
  adopt(page: LedgerPage): Incoming[];
}

export function createLedger(): Ledger {
  let lastEventId: string | undefined;
  const channels = new Map<string, Channel>();
  const seen = new Set<string>();

  function at(name: string): Channel {
    const channel = channels.get(name) ?? {};
    channels.set(name, channel);
    forgetOldest(channels, CHANNELS_MAX);
    return channel;
  }

  function has(id: string): boolean {
    return seen.has(eventOf(id));
  }

  function isLost(name: string): boolean {
    const { joined, id, value } = channels.get(name) ?? {};
    return !!joined && !id && !value;
  }

  function acceptEvent(name: string | undefined, id: string): boolean {
    const channel = name === undefined ? {} : at(name);
    if (channel.replaying && has(id)) return false;
    seen.add(eventOf(id));
    forgetOldest(seen, SEEN_MAX);
    channel.id = lastEventId = id;
    channel.value = undefined;
    return true;
  }

  function accept(message: Incoming): boolean {
    const { kind, channel: name } = message;
    if (kind === "event" && message.id) return acceptEvent(name, message.id);
    // On SSE the last word of a replay has the position.
    if ("id" in message && message.id) lastEventId = message.id;
    const word = kind === "notice" ? message.type : kind === "gap" ? message.reason : kind;
    if (word === "connected" && kind === "notice") {
      for (const channel of connectedChannels(message.data)) at(channel).joined = true;
    }
    if (name === undefined) return true;
    const channel = at(name);
    // On SSE other events may come without their id, too; a state's never has one.
    if (kind === "event" && message.id === undefined && !channel.id) channel.value = message;
    if (word === "deleted") channel.value = undefined;
    if (word === "subscribed") channel.joined = true;
    // After a rewind old ids name new events.
    if (word === "replayed" || word === "rewound") channel.replaying = false;
    return true;
  }

  function resume(): void {
    for (const channel of channels.values()) channel.replaying = true;
  }

  function adopt(page: LedgerPage): Incoming[] {
    const news: Incoming[] = [];
    for (const [name, { joined, id, value }] of channels) {
      const their = page.channels.get(name);
      const missed = their?.joined && their.id ? joined && !has(their.id) : isLost(name);
      if (missed) news.push({ kind: "gap", channel: name, after: id, reason: "asleep" });
      if (value && !their?.value) news.push({ kind: "deleted", channel: name });
    }
    for (const [name, { joined, id, value }] of page.channels) {
      const channel = at(name);
      channel.joined = joined ?? false;
      if (id && !has(id)) {
        channel.id = id;
        seen.add(eventOf(id)); // what came before it is told of
      }
      if (value && JSON.stringify(value) !== JSON.stringify(channel.value)) news.push(value);
    }
    lastEventId = page.lastEventId ?? lastEventId;
    resume();
    return news;
  }

  return {
    accept,
    resume,
    isLost,
    adopt,
    lastEventId: () => lastEventId,
    position: (name) => channels.get(name)?.id,
    begin(name, since) {
      const channel = at(name);
      if (!channel.joined) channel.id ??= since;
    },
    value: (name) => channels.get(name)?.value,
    forget: (name) => channels.delete(name),
    page: () => ({ lastEventId, channels }),
  };
}

/** Holds to a bound after something was added. */
function forgetOldest(all: Map<string, unknown> | Set<string>, sizeMax: number): void {
  const [oldest = ""] = all.keys();
  if (all.size > sizeMax) all.delete(oldest);
}

/** The channels that a greeting names. */
export function connectedChannels({ channels }: Readonly<Record<string, unknown>>): string[] {
  return Array.isArray(channels) ? channels.map(String) : [];
}
