import { connect } from "./connection.js";
import { createLedger } from "./ledger.js";
import type { Link, LinkHost, LinkState, Target } from "./link.js";
import type { Page, PageEvent } from "./page.js";
import { connectTabs } from "./tabs.js";
import type { Incoming, StreamError } from "./types.js";
import { ended } from "./wire.js";

/** How long a connection is kept after its last listener left: a page that changes its view comes back at once. */
const LINGER_MS = 1_000;
/** How many commands may wait for the connection. */
const OUTBOX_MAX = 100;

/** One listener: what a source needs to know of a stream. */
export interface Listener {
  /** undefined: everything. */
  channels(): ReadonlySet<string> | undefined;
  /** Where channels begin that have no position. */
  since(): string | undefined;
  receive(message: Incoming): void;
  changed(state: LinkState): void;
}

/**
 * One connection and all who listen to it in this page. It begins with the first listener, ends a
 * moment after the last, and lets go while the page sleeps.
 */
export interface Source {
  join(listener: Listener): void;
  leave(listener: Listener): void;
  /** The listener's channels are others now. It hears the values that are known already. */
  channelsChanged(listener: Listener): void;
  /** Sends a command, now or when the connection is open; says what is wrong with it. */
  send(text: string): StreamError | undefined;
  reconnect(): void;
}

/** `shared` is the name that tabs share the connection under; undefined: they don't. */
function createSource(target: Target, shared: string | undefined, forget: () => void): Source {
  const { page } = target;
  const ledger = createLedger();
  const listeners = new Set<Listener>();
  let state: LinkState = { status: "idle", error: null };
  let link: Link | undefined;
  let stopListening: (() => void) | undefined;
  let lingering: ReturnType<typeof setTimeout> | undefined;
  let syncing = false;
  let outbox: string[] = [];

  const host: LinkHost = {
    ledger,
    channels: () => [...listeners].flatMap((listener) => [...(listener.channels() ?? [])]),
    receive(messages) {
      for (const message of messages) {
        if (!ledger.accept(message)) continue;
        for (const listener of listeners) listener.receive(message);
      }
    },
    changed(next) {
      if (next.status === "connecting" && state.status !== "connecting") ledger.resume();
      state = next;
      if (link && next.status === "open") {
        outbox.forEach(link.send);
        outbox = [];
      }
      for (const listener of listeners) listener.changed(next);
    },
  };

  function start(): void {
    link = shared && page.locks && page.BroadcastChannel ? connectTabs(shared, target, host) : connect(target, host);
  }

  function stop(): void {
    link?.close();
    link = undefined;
  }

  function pageChanged(event: PageEvent): void {
    if (event === "sleep") {
      stop();
      host.changed({ status: "waiting", error: null });
    } else if (!link) start();
    else link.check();
  }

  /** Once for all that change in one go: a component that is mounted twice in a row subscribes once. */
  function syncSoon(): void {
    if (syncing) return;
    syncing = true;
    queueMicrotask(() => {
      syncing = false;
      link?.sync();
    });
  }

  function channelsChanged(listener: Listener): void {
    syncSoon();
    const channels = [...(listener.channels() ?? [])];
    const since = listener.since();
    if (since) for (const channel of channels) ledger.begin(channel, since);
    queueMicrotask(() => {
      for (const value of channels.map(ledger.value)) {
        if (value && listeners.has(listener)) listener.receive(value);
      }
    });
  }

  return {
    channelsChanged,
    join(listener) {
      clearTimeout(lingering);
      listeners.add(listener);
      channelsChanged(listener);
      if (!stopListening) {
        stopListening = page.listen(pageChanged);
        start();
      }
      listener.changed(state);
    },
    leave(listener) {
      listeners.delete(listener);
      syncSoon();
      if (listeners.size > 0) return;
      lingering = setTimeout(() => {
        stopListening?.();
        stop();
        forget();
      }, LINGER_MS);
    },
    send(text) {
      if (state.status === "open") link?.send(text);
      else if (outbox.length < OUTBOX_MAX) outbox.push(text);
      else return ended("queue_full", "too many commands wait");
      return undefined;
    },
    reconnect: () => link?.reconnect(),
  };
}

const pages = new WeakMap<Page, Map<string, Source>>();

/** The source of that name in the page, made if need be. */
export function sourceOf(key: string, target: Target, shared: string | undefined): Source {
  const sources = pages.get(target.page) ?? new Map<string, Source>();
  pages.set(target.page, sources);
  const source = sources.get(key) ?? createSource(target, shared, () => sources.delete(key));
  sources.set(key, source);
  return source;
}
