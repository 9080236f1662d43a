import type { Target } from "./link.js";
import { type Listener, type Source, sourceOf } from "./source.js";
import type { Message, ReadyState, Snapshot, Status, StreamError, StreamOptions } from "./types.js";
import { ended } from "./wire.js";

/**
 * One listener's hold on a connection that it shares with others. Making one does nothing yet: it
 * connects while it is opened, by {@link open} or by somebody who listens for its snapshots. The
 * functions may be taken off it.
 */
export interface Stream<T = unknown> {
  /** Connects, until the returned function is called. It may be opened many times over. */
  readonly open: () => () => void;
  /** Opens, and calls back when there is another {@link snapshot}: at most once a frame. */
  readonly listen: (observer: () => void) => () => void;
  readonly snapshot: () => Snapshot<T>;
  /** Takes other callbacks, `filter` and `channels`. What makes the connection stays as it is. */
  readonly update: (options: StreamOptions<T>) => void;
  /** Connects again at once, also after having given up or {@link close}. */
  readonly reconnect: () => void;
  /** Leaves the connection, until {@link reconnect}. */
  readonly close: () => void;
}

/** A stream over WebSocket, which has a way back. */
export interface SocketStream<T = unknown> extends Stream<T> {
  /** Sends a command to the gateway, such as `publish`, now or when the connection is open. The stream is to be opened. */
  readonly sendJsonMessage: (command: unknown) => void;
}

/** Between attempts a stream is connecting, as it is for EventSource. The others are as good as closed. */
const READY: Partial<Record<Status, ReadyState>> = { idle: -1, connecting: 0, waiting: 0, offline: 0, open: 1 };
const CLOSED = 3;

/** A stream that nobody has opened; also what a server renders. */
const NOTHING: Snapshot<never> = {
  status: "idle",
  readyState: -1,
  lastMessage: null,
  lastJsonMessage: null,
  lastEventId: null,
  error: null,
  gaps: 0,
};

/** Counts the streams that share nothing, for their names. */
let loners = 0;

/** `way` names the kind of wire; `address` null is nowhere. */
export function createStream<T>(
  way: string,
  address: string | null,
  options: StreamOptions<T>,
  { page, open: openWire }: Pick<Target, "page" | "open">,
): SocketStream<T> {
  let channels = setOf(options.channels);
  let openers = 0;
  let stopped = false;
  let source: Source | undefined;
  /** The next snapshot, as far as it is known. */
  const next: { -readonly [K in keyof Snapshot<T>]: Snapshot<T>[K] } = { ...NOTHING };
  let current: Snapshot<T> = NOTHING;
  const observers = new Set<() => void>();
  let frameAsked = false;

  const listener: Listener = {
    channels: () => channels,
    since: () => options.since,
    changed({ status, error }) {
      if (error && error !== next.error) fail(error);
      become(status);
    },
    receive(message) {
      if (message.channel !== undefined && !concerns(message.channel)) return;
      if (message.kind !== "notice") {
        take(message as Message<T>);
        return;
      }
      const { type, data, channel } = message;
      if (type === "error") fail({ ...ended(String(data["code"]), String(data["message"])), channel });
      call(options.onNotice, message);
    },
  };

  function concerns(channel: string): boolean {
    return !channels || channels.has(channel) || channels.has(channel.replace(/:.*/, ":*"));
  }

  function take(message: Message<T>): void {
    const isEvent = message.kind === "event";
    if (message.kind === "gap") {
      next.gaps++;
      call(options.onGap, message);
    }
    call(options.onMessage, message);
    if (isEvent && message.id) next.lastEventId = message.id;
    if (!options.filter || call(options.filter, message)) {
      next.lastMessage = message;
      if (isEvent) next.lastJsonMessage = message.data;
    }
    askForFrame();
  }

  function become(status: Status): void {
    const before = next.status;
    next.status = status;
    next.readyState = READY[status] ?? CLOSED;
    if (status === "open") next.error = null;
    if (status === "open" && before !== "open") call(options.onOpen, undefined);
    if (status !== "open" && before === "open") call(options.onClose, undefined);
    askForFrame();
  }

  function fail(error: StreamError): void {
    next.error = error;
    call(options.onError, error);
    askForFrame();
  }

  /** A callback that throws must not keep the message from others. */
  function call<A, R>(callback: ((argument: A) => R) | undefined, argument: A): R | undefined {
    try {
      return callback?.(argument);
    } catch (error) {
      globalThis.reportError?.(error);
      return undefined;
    }
  }

  function askForFrame(): void {
    if (frameAsked) return;
    frameAsked = true;
    page.nextFrame(() => {
      frameAsked = false;
      current = { ...next };
      for (const observer of observers) observer();
    });
  }

  function join(): void {
    if (address === null || stopped) return;
    const url = new URL(address, page.address());
    url.protocol = url.protocol.replace("ws", "http");
    const { share = true, user, token } = options;
    const key = `millrace ${way} ${url} ${user ?? ""}`;
    // A token is somebody's: without a word about whose, other tabs are left out.
    const shared = share === true && (user !== undefined || !token) ? key : undefined;
    const target = { page, url, open: openWire, options: options as StreamOptions };
    source = sourceOf(share ? key : `${key} ${++loners}`, target, shared);
    source.join(listener);
  }

  function leave(status: Status): void {
    source?.leave(listener);
    source = undefined;
    become(status);
  }

  function open(): () => void {
    if (openers++ === 0) join();
    let opened = true;
    return () => {
      if (opened && --openers === 0) leave("idle");
      opened = false;
    };
  }

  return {
    open,
    listen(observer) {
      observers.add(observer);
      const close = open();
      return () => {
        observers.delete(observer);
        close();
      };
    },
    snapshot: () => current,
    update(others) {
      const changed = `${options.channels}` !== `${others.channels}`;
      options = others;
      if (!changed) return;
      channels = setOf(others.channels);
      source?.channelsChanged(listener);
    },
    sendJsonMessage(command) {
      const error = source?.send(JSON.stringify(command));
      if (error) fail(error);
    },
    reconnect() {
      stopped = false;
      if (source) source.reconnect();
      else if (openers > 0) join();
    },
    close() {
      stopped = true;
      leave("closed");
    },
  };
}

function setOf(channels: readonly string[] | undefined): ReadonlySet<string> | undefined {
  return channels && new Set(channels);
}
