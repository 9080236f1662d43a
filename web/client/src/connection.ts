import { backoffMs } from "./backoff.js";
import { connectedChannels } from "./ledger.js";
import type { Link, LinkHost, LinkState, Target } from "./link.js";
import type { GapMessage, Incoming, Notice, StreamError } from "./types.js";
import { type End, ended, LOST, type Wire } from "./wire.js";

/** How long the gateway may take to confirm the channels, for which it gives itself 10 s. */
const ANSWER_MS = 15_000;
/** A connection that held for so long counts as one: the next pause is short again. */
const HELD_MS = 10_000;
/** Between two looks at whether the other side lives. The gateway's keep-alives come every 15 s. */
const LOOK_MS = 20_000;
/** Looks in a row without a sign of life. A hidden tab's timers are slow, so looks are counted, not seconds. */
const SILENT_LOOKS_MAX = 2;
/** A page that comes back after so long a silence does not wait for another look. */
const SILENCE_MS = 45_000;
/** Before a channel is asked for again that could not be subscribed to for the moment. */
const ASK_AGAIN_MS = 5_000;
/** A command has to stay below the gateway's max-message-bytes: a channel and its position take at most 770 bytes. */
const CHANNELS_PER_COMMAND = 50;
const MESSAGE_BYTES_MAX = 16 << 20;

/**
 * Keeps one wire open, making a new one when it ends, until there is a reason not to. On a WebSocket
 * it also keeps the subscriptions: after each greeting it asks for all channels again, with the
 * position on each.
 */
export function connect({ page, url, open, options }: Target, host: LinkHost): Link {
  const { ledger } = host;
  let state: LinkState = { status: "idle", error: null };
  let wire: Wire | undefined;
  /** Counts wires: what was begun for a former one is not gone on with. */
  let turn = 0;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let failures = 0;
  let openedAt = Number.POSITIVE_INFINITY;
  let heardAt = 0;
  let silentLooks = 0;
  /** A better token was already asked for since the last time that one was good. */
  let tokenRefused = false;
  /** What the gateway said before it ended the wire. */
  let lastWord: StreamError | undefined;
  /** The channels that this wire was asked for. */
  let asked = new Set<string>();
  /** The channels that came unasked: the user's own and the broadcasts. */
  let unasked: string[] = [];
  /** Channels that were denied. They are not asked for again, for the gateway closes the socket over one. */
  const denied = new Set<string>();

  function drop(): void {
    turn++;
    clearTimeout(timer);
    wire?.close();
    wire = lastWord = undefined;
    asked.clear();
    unasked = [];
  }

  function change(status: LinkState["status"], error = state.error): void {
    state = { status, error };
    host.changed(state);
  }

  function attempt(): void {
    drop();
    const mine = turn;
    openedAt = Number.POSITIVE_INFINITY;
    change("connecting");
    if (mine !== turn) return; // whoever was told has closed us
    timer = setTimeout(() => end(ended("no_answer", "no answer in time")), ANSWER_MS);
    const { token } = options;
    if (!token) {
      openWire(undefined);
      return;
    }
    Promise.resolve()
      .then(token)
      .then(
        (value) => mine === turn && openWire(value),
        (error) => mine === turn && end(ended("token", String(error))),
      );
  }

  function openWire(token: string | undefined): void {
    const { maxMessageBytes: bytesMax = MESSAGE_BYTES_MAX } = options;
    const request = { page, url, token, lastEventId: ledger.lastEventId(), options, bytesMax };
    wire = open(request, { heard, messages: receive, ended: end });
    if (!wire) end(ended("unsupported", "not in this browser", true));
  }

  function heard(): void {
    heardAt = Date.now();
    silentLooks = 0;
  }

  function receive(messages: Incoming[]): void {
    const mine = turn;
    heard();
    for (const message of messages) {
      lastWord = undefined;
      if (message.kind === "notice") notice(message);
      // An SSE stream that is not ours greets with whatever it has.
      else if (state.status === "connecting" && !wire?.send) opened();
      host.receive([message]);
      if (mine !== turn) return;
      if (message.kind === "complete") end({ ...LOST, complete: true });
    }
  }

  function notice({ type, data, channel }: Notice): void {
    if (type === "connected") {
      unasked = connectedChannels(data);
      const gaps = lost();
      opened();
      // Again for those that flow unasked, but were left at a position.
      const left = unasked.filter(ledger.position);
      if (sync())
        command(
          "subscribe",
          left.filter((name) => !asked.has(name)),
        );
      host.receive(gaps);
    } else if (type === "error" || type === "server_error") {
      const code = String(data["code"]);
      const denies = code === "access_denied";
      if (denies || type === "server_error") lastWord = { ...ended(code, String(data["message"])), channel };
      if (denies && channel) denied.add(channel);
      else if (channel && asked.delete(channel) && /unavailable|rate_limited/.test(code))
        setTimeout(sync, ASK_AGAIN_MS);
    }
  }

  function opened(): void {
    clearTimeout(timer);
    openedAt = Date.now();
    silentLooks = 0;
    tokenRefused = false;
    look();
    change("open", null);
  }

  /** Gaps for the channels of which nobody can say what was missed. An SSE stream with a position leaves that to the gateway. */
  function lost(): GapMessage[] {
    if (!wire?.send && ledger.lastEventId()) return [];
    return [...new Set([...unasked, ...host.channels()])]
      .filter(ledger.isLost)
      .map((channel) => ({ kind: "gap", channel, after: undefined, reason: "unknown_position" }));
  }

  /** Asks for the channels that are wanted, and for no others. */
  function sync(): boolean {
    if (state.status !== "open" || !wire?.send) return false;
    const wanted = new Set(host.channels());
    const gone = [...asked].filter((channel) => !wanted.has(channel) && !unasked.includes(channel));
    gone.forEach(ledger.forget);
    command("unsubscribe", gone);
    command(
      "subscribe",
      [...wanted].filter((channel) => !asked.has(channel) && !denied.has(channel)),
    );
    asked = wanted;
    return true;
  }

  function command(type: "subscribe" | "unsubscribe", all: readonly string[]): void {
    for (let start = 0; start < all.length; start += CHANNELS_PER_COMMAND) {
      const channels = all.slice(start, start + CHANNELS_PER_COMMAND);
      const known = channels.flatMap((channel) => {
        const id = ledger.position(channel);
        return id ? [[channel, id]] : [];
      });
      send(JSON.stringify({ type, channels, since: known.length > 0 ? Object.fromEntries(known) : undefined }));
    }
  }

  function send(text: string): void {
    if (state.status === "open") wire?.send?.(text);
  }

  function ping(): void {
    send('{"type":"ping"}');
  }

  /** Looks whether the other side lives. A WebSocket is asked; an EventSource shows no keep-alives and can't be. */
  function look(): void {
    if (options.transport === "eventsource") return;
    timer = setTimeout(() => {
      if (silentLooks++ < SILENT_LOOKS_MAX) {
        ping();
        look();
      } else end(ended("lost", "the gateway fell silent"));
    }, LOOK_MS);
  }

  function end(why: End): void {
    const error = judge(why);
    if (Date.now() - openedAt >= HELD_MS) failures = 0;
    drop();
    const { reconnect, reconnectAttempts = Number.POSITIVE_INFINITY, shouldReconnect } = options;
    const wanted = reconnect !== false && (shouldReconnect ? shouldReconnect(error) : !error.final);
    if (why.complete) change("complete", null);
    else if (!wanted || failures >= reconnectAttempts) change("failed", error);
    else {
      failures++;
      timer = setTimeout(attempt, pauseMs(why.afterMs));
      change(page.isOnline() ? "waiting" : "offline", error);
    }
  }

  /** Says whether it is final. A better token may help, once; and a channel that was denied is not asked for again. */
  function judge(why: End): StreamError {
    const error = { ...why, ...lastWord };
    const { code, channel } = error;
    if (code === "unauthorized" || code === "token_expired") {
      error.final = !options.token || tokenRefused;
      tokenRefused = true;
    } else error.final = why.final && !(code === "access_denied" && channel);
    return error;
  }

  /** Before the next attempt. What the gateway asks for is held to, whatever was set. */
  function pauseMs(afterMs = 0): number {
    const { reconnectInterval: interval = (attempt: number) => backoffMs(attempt, Math.random()) } = options;
    return Math.max(afterMs, typeof interval === "number" ? interval : interval(failures));
  }

  attempt();

  return {
    sync,
    send,
    close: drop,
    reconnect() {
      failures = 0;
      tokenRefused = false;
      denied.clear();
      attempt();
    },
    check() {
      if (/waiting|offline/.test(state.status)) attempt();
      else if (state.status === "open" && Date.now() - heardAt > SILENCE_MS) end(LOST);
      else ping();
    },
  };
}
