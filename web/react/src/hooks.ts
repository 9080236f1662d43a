import { type Page, type Snapshot, type SocketStream, type StreamOptions, sse, webSocket } from "@millrace/client";
import { createContext, useContext, useEffect, useMemo, useSyncExternalStore } from "react";
import { type Channel, channelName } from "./channel.js";

/** Names for `readyState`. */
export const ReadyState = { UNINSTANTIATED: -1, CONNECTING: 0, OPEN: 1, CLOSED: 3 } as const;

/** What hooks do where they are not told otherwise. */
export interface Defaults extends Pick<StreamOptions, "token" | "user" | "share"> {
  /** The WebSocket's address, for `useChannel`; `/ws` by default. */
  url?: string;
  /** For tests: what stands in for the browser. */
  page?: Page;
}

/** Defaults for the hooks below it: `<MillraceDefaults value={{ token, user }}>`. */
export const MillraceDefaults = createContext<Defaults>({});

/** What a hook gives. The functions stay the same as long as the connection does. */
export interface Live<T> extends Snapshot<T> {
  /** Connects again at once, also after having given up. */
  readonly reconnect: () => void;
  /** Leaves the connection, until `reconnect`. */
  readonly close: () => void;
  /** Another name of `close`. */
  readonly disconnect: () => void;
}

export interface LiveSocket<T> extends Live<T> {
  /** Sends a command; what is sent before the socket is open waits for it. */
  readonly sendJsonMessage: (command: unknown) => void;
}

export interface LiveOptions<T = unknown> extends StreamOptions<T> {
  /** Another name of `reconnectAttempts`. */
  maxReconnectAttempts?: number | undefined;
}

/** Listens to an SSE stream: `useSSE("/api/stream?channel=job_progress:job_123")`. null: to nothing. */
export function useSSE<T = unknown>(url: string | null, options?: LiveOptions<T>): Live<T> {
  return useLive<T>(sse, url, options);
}

/** Listens to a WebSocket: `useWebSocket("/ws", { channels: ["job_progress:job_123"] })`. null: to nothing. */
export function useWebSocket<T = unknown>(url: string | null, options?: LiveOptions<T>): LiveSocket<T> {
  return useLive<T>(webSocket, url, options);
}

/** Listens to one channel, on the one WebSocket of the page. null: to none. */
export function useChannel<T = unknown>(
  channel: Channel | null,
  options?: LiveOptions<T> & { url?: string },
): LiveSocket<T> {
  const { url = "/ws" } = useContext(MillraceDefaults);
  const channels = channel === null ? [] : [channelName(channel)];
  return useLive<T>(webSocket, channel === null ? null : (options?.url ?? url), { ...options, channels });
}

/** The stream is the state; a component only watches it. It opens when React subscribes, so never on a server. */
function useLive<T>(make: typeof sse, url: string | null, own: LiveOptions<T> = {}): LiveSocket<T> {
  const { page, url: _, ...defaults } = useContext(MillraceDefaults);
  const { maxReconnectAttempts: reconnectAttempts, ...others } = own;
  const options: StreamOptions<T> = { reconnectAttempts, ...defaults, ...others };
  const { share, user, transport, events, headers, withCredentials } = options;
  const identity = JSON.stringify([url, share, user, transport, events, headers, withCredentials]);
  // biome-ignore lint/correctness/useExhaustiveDependencies: what makes another connection is in identity; the rest is handed on below
  const stream = useMemo(() => make<T>(url, options, page) as SocketStream<T>, [make, identity, page]);
  // Before the subscription below, so that no callback of an earlier render hears anything.
  useEffect(() => stream.update(options));
  const snapshot = useSyncExternalStore(stream.listen, stream.snapshot, stream.snapshot);
  return useMemo(() => {
    const { reconnect, close, sendJsonMessage } = stream;
    return { ...snapshot, reconnect, close, disconnect: close, sendJsonMessage };
  }, [snapshot, stream]);
}
