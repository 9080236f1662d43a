import type { Page } from "./page.js";
import type { Incoming, StreamError, StreamOptions } from "./types.js";

/** What a wire is told when it is opened. */
export interface WireRequest {
  readonly page: Page;
  /** Absolute; `http:` or `https:`. */
  readonly url: URL;
  readonly token: string | undefined;
  /** SSE: where to go on from. */
  readonly lastEventId: string | undefined;
  readonly options: StreamOptions;
  readonly bytesMax: number;
}

/** What a wire tells. */
export interface WireEvents {
  /** The other side gave a sign of life. */
  heard(): void;
  messages(messages: Incoming[]): void;
  /** The wire is over: once, and never after {@link Wire.close}. */
  ended(end: End): void;
}

/** How a wire ended. */
export interface End extends StreamError {
  /** The stream is finished: it does not fail, and nobody comes back. */
  readonly complete?: boolean;
  /** Not to come back before, in milliseconds. */
  readonly afterMs?: number | undefined;
}

/** One connection, from its opening to its end: there are three kinds, and `connect` makes one after another. */
export interface Wire {
  /** Sends a command; only a WebSocket can. */
  readonly send?: (text: string) => void;
  close(): void;
}

/** undefined: this browser can't. */
export type OpenWire = (request: WireRequest, events: WireEvents) => Wire | undefined;

export function ended(code: string, message: string, final = false): End {
  return { code, message, final };
}

export const LOST: End = ended("lost", "the connection was lost");

/** The address for SSE, where a position replaces `since`. */
export function resumeAddress({ url, lastEventId }: WireRequest): URL {
  const address = new URL(url);
  if (lastEventId !== undefined) address.searchParams.delete("since");
  return address;
}
