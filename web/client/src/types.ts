// What the package hands out and takes in. Everything that arrives is plain data, so that it can be
// handed to another tab as it is.

/** An event that a worker published. */
export interface EventMessage<T = unknown> {
  readonly kind: "event";
  /**
   * The channel. On an SSE stream an event tells it by its id; one without an id, on a stream of
   * several channels, leaves it undefined.
   */
  readonly channel: string | undefined;
  /**
   * The event's position, to compare and to hand back. Events of `state` channels have none, nor do
   * some on SSE; it is empty within a batch, whose last event alone may tell it.
   */
  readonly id: string | undefined;
  /** The payload's `type` if it is a plain word of the worker's own, else `message`. */
  readonly type: string;
  /** The payload, parsed; the text itself where it is not JSON. */
  readonly data: T;
}

/**
 * Something on the channel may be missing: read its state again if it matters. One gap too many is
 * possible, a silent loss is not.
 */
export interface GapMessage {
  readonly kind: "gap";
  readonly channel: string | undefined;
  /** The last id before the gap, where there was one. */
  readonly after: string | undefined;
  /**
   * The gateway's reason (`slow`, `broker`, `trimmed`, `rewound`, `unknown_position`), or the
   * client's own: `asleep`, this tab was frozen while another one went on.
   */
  readonly reason: string;
  /** SSE: where to go on from, now that it is told. */
  readonly id?: string | undefined;
}

/** The channel, of mode `state`, has no value any more. */
export interface DeletedMessage {
  readonly kind: "deleted";
  readonly channel: string | undefined;
}

/** The stream is finished. Nothing follows, and nobody reconnects. */
export interface CompleteMessage {
  readonly kind: "complete";
  readonly channel: undefined;
  readonly data: unknown;
}

/** Something that the gateway said about the stream itself: `connected`, `subscribed`, `published`, `error` and so on. */
export interface Notice {
  readonly kind: "notice";
  readonly type: string;
  readonly channel: string | undefined;
  readonly data: Readonly<Record<string, unknown>>;
  /** SSE: where to go on from, now that it is told. */
  readonly id?: string | undefined;
}

/** What a listener gets. */
export type Message<T = unknown> = EventMessage<T> | GapMessage | DeletedMessage | CompleteMessage;

/** What arrives on a wire, once it is decoded. */
export type Incoming = Message | Notice;

/**
 * - `idle`: nobody has opened the stream
 * - `connecting`: on its way
 * - `open`: the gateway confirmed every channel
 * - `waiting`: for the next attempt
 * - `offline`: waiting, and the browser says that there is no network
 * - `closed`: by `close()`
 * - `failed`: given up; `error` says why, `reconnect()` tries again
 * - `complete`: the stream is finished
 */
export type Status = "idle" | "connecting" | "open" | "waiting" | "offline" | "closed" | "failed" | "complete";

/** The numbers of `WebSocket.readyState` (0 connecting, 1 open, 3 closed), and -1 for a stream that nobody has opened. */
export type ReadyState = -1 | 0 | 1 | 3;

/** What went wrong. Plain data, not an `Error`: it may come from another tab. */
export interface StreamError {
  /** The gateway's code (`unauthorized`, `access_denied` ..), or `lost`, `no_answer`, `token`, `too_large`, `undecodable`, `unsupported`, `queue_full`. */
  readonly code: string;
  readonly message: string;
  /** The HTTP status, where an SSE request was refused. */
  readonly status?: number | undefined;
  /** The WebSocket's close code. */
  readonly closeCode?: number | undefined;
  /** The channel, where only that one is concerned. */
  readonly channel?: string | undefined;
  /** Whether another attempt would end the same way. */
  readonly final: boolean;
}

/** What a stream is at the moment. A new object when something changed, at most one a frame. */
export interface Snapshot<T = unknown> {
  readonly status: Status;
  readonly readyState: ReadyState;
  /** The newest message that passed `filter`. */
  readonly lastMessage: Message<T> | null;
  /** The payload of the newest event that passed `filter`. */
  readonly lastJsonMessage: T | null;
  readonly lastEventId: string | null;
  /** What went wrong last; null again once the stream is open. */
  readonly error: StreamError | null;
  /** How many gaps there were. */
  readonly gaps: number;
}

export interface StreamOptions<T = unknown> {
  /**
   * WebSocket: the channels to listen to. They may change while the stream is open. Without them the listener hears everything that the shared socket carries.
   */
  channels?: readonly string[] | undefined;
  /** WebSocket: where to begin on channels that have no position yet: `0` is the beginning. Live only by default. */
  since?: string | undefined;
  /** SSE: how. `fetch`, the default, hears every event name, sends headers and learns why it was refused. */
  transport?: "fetch" | "eventsource" | undefined;
  /** SSE by EventSource: the event names to listen for. A browser hands over no others. */
  events?: readonly string[] | undefined;
  /** SSE by fetch: further request headers. */
  headers?: Readonly<Record<string, string>> | undefined;
  /** SSE: send cookies to another origin. */
  withCredentials?: boolean | undefined;

  /** Called before each connection. Say in `user` whose token it is, or other tabs are left out. */
  token?: (() => string | undefined | Promise<string | undefined>) | undefined;
  /** SSE by EventSource: send the token as `?token=`, which servers and proxies may log. */
  tokenInQuery?: boolean | undefined;
  /** Who is connected. A connection is shared only where URL and user are the same. */
  user?: string | undefined;
  /** true, the default: one connection for all tabs; `page`: for this page; false: for this stream alone. */
  share?: boolean | "page" | undefined;

  /** false: never come back. */
  reconnect?: boolean | undefined;
  /** How many attempts in a row may fail; endless by default. */
  reconnectAttempts?: number | undefined;
  /** The pause before an attempt in milliseconds. By default exponential with jitter, from 1 s to 30 s. */
  reconnectInterval?: number | ((attempt: number) => number) | undefined;
  /** Decides instead of `error.final` whether to come back. */
  shouldReconnect?: ((error: StreamError) => boolean) | undefined;
  /** The longest message that is taken, in bytes of text; 16 MiB by default. */
  maxMessageBytes?: number | undefined;

  /** Which messages become `lastMessage`. The callbacks see all. */
  filter?: ((message: Message<T>) => boolean) | undefined;
  /** Every message, at once, also those that no snapshot shows. */
  onMessage?: ((message: Message<T>) => void) | undefined;
  onGap?: ((gap: GapMessage) => void) | undefined;
  onNotice?: ((notice: Notice) => void) | undefined;
  onError?: ((error: StreamError) => void) | undefined;
  onOpen?: (() => void) | undefined;
  onClose?: (() => void) | undefined;
}
