// Millrace in a browser: SSE and WebSocket behind one interface, which comes back by itself, goes on
// from where it was, and needs one connection for all tabs.
//
//   stream        one listener: options, callbacks, snapshots
//   source        all listeners of a page to one connection; the ledger of what has arrived
//   tabs          the connection is another tab's, or this tab's for all of them
//   connection    one wire after another, with pauses; subscriptions and positions
//   wire-*        one wire from opening to end: WebSocket, fetch, EventSource
//   decode        text to messages
//
// Each knows those below it only. Above a wire everything is plain data. What keeps state is a function
// with variables, not a class: a minifier can't shorten `this.failures`, and classes came to 0.7 of the
// 8 KB that all of this may weigh.

import { browserPage, type Page } from "./page.js";
import { createStream, type SocketStream, type Stream } from "./stream.js";
import type { StreamOptions } from "./types.js";
import { openEventSource } from "./wire-eventsource.js";
import { openFetch } from "./wire-fetch.js";
import { openWebSocket } from "./wire-websocket.js";

export type { Page, PageEvent } from "./page.js";
export type { SocketStream, Stream } from "./stream.js";
export type * from "./types.js";

/** Makes a stream over SSE: `sse("/api/stream?channel=job_progress:job_123")`. null is a stream to nowhere. */
export function sse<T = unknown>(
  url: string | null,
  options: StreamOptions<T> = {},
  page: Page = browserPage,
): Stream<T> {
  const { transport = "fetch" } = options;
  return createStream(transport, url, options, { page, open: transport === "fetch" ? openFetch : openEventSource });
}

/** Makes a stream over WebSocket: `webSocket("/ws", { channels: ["job_progress:job_123"] })`. */
export function webSocket<T = unknown>(
  url: string | null,
  options: StreamOptions<T> = {},
  page: Page = browserPage,
): SocketStream<T> {
  return createStream("websocket", url, options, { page, open: openWebSocket });
}
