/**
 * - `visible`, `hidden`: the tab was shown, or is behind another
 * - `sleep`: the page is left, frozen, or put into the back/forward cache. It has a moment to let go
 * - `wake`: it is back
 * - `online`: the browser says that there is a network again
 */
export type PageEvent = "visible" | "hidden" | "sleep" | "wake" | "online";

/**
 * All that the client asks of a browser. Tests give one of their own; what a browser lacks is
 * undefined, and the client does without it or says so.
 */
export interface Page {
  readonly WebSocket: (new (url: string, protocols: string[]) => WebSocket) | undefined;
  readonly EventSource: (new (url: string, options: EventSourceInit) => EventSource) | undefined;
  readonly BroadcastChannel: (new (name: string) => BroadcastChannel) | undefined;
  readonly locks: Pick<LockManager, "request"> | undefined;
  fetch(url: string, options: RequestInit): Promise<Response>;
  /** What relative addresses are relative to. */
  address(): string;
  isHidden(): boolean;
  isOnline(): boolean;
  /** Calls back on each {@link PageEvent} until the returned function is called. */
  listen(handler: (event: PageEvent) => void): () => void;
  /** Calls back once before the next frame is drawn; within a second where none is drawn. */
  nextFrame(callback: () => void): void;
}

/** A hidden tab draws no frames; its title and its favicon may still follow events. */
const HIDDEN_FRAME_MS = 1_000;

/** The browser's page; on a server, where this module is loaded too, most of it is missing and nothing is asked of it. */
export const browserPage: Page = {
  WebSocket: globalThis.WebSocket,
  EventSource: globalThis.EventSource,
  BroadcastChannel: globalThis.BroadcastChannel,
  locks: globalThis.navigator?.locks,
  fetch: (url, options) => globalThis.fetch(url, options),
  address: () => globalThis.location.href,
  isHidden: () => !!globalThis.document?.hidden,
  isOnline: () => globalThis.navigator?.onLine !== false,
  listen(handler) {
    const stopping = new AbortController();
    const hear = ({ type, persisted }: Event & { persisted?: boolean }) => {
      if (type === "online") handler(type);
      else if (type === "visibilitychange") handler(browserPage.isHidden() ? "hidden" : "visible");
      else if (/freeze|pagehide/.test(type)) handler("sleep");
      else if (type === "resume" || persisted) handler("wake");
    };
    // The document's own pass here, too, on their way down.
    for (const name of ["visibilitychange", "freeze", "resume", "pagehide", "pageshow", "online"]) {
      globalThis.addEventListener?.(name, hear, { capture: true, signal: stopping.signal });
    }
    return () => stopping.abort();
  },
  nextFrame(callback) {
    let done = false;
    const once = () => {
      if (done) return;
      done = true;
      clearTimeout(timer);
      callback();
    };
    const timer = setTimeout(once, HIDDEN_FRAME_MS);
    if (!browserPage.isHidden()) globalThis.requestAnimationFrame?.(once);
  },
};
