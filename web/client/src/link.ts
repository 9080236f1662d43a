import type { Ledger } from "./ledger.js";
import type { Page } from "./page.js";
import type { Incoming, Status, StreamError, StreamOptions } from "./types.js";
import type { OpenWire } from "./wire.js";

/** Where a link stands. Plain data: it goes from tab to tab. */
export interface LinkState {
  readonly status: Status;
  readonly error: StreamError | null;
}

/** What a link is for: what it is told, and whom it tells. */
export interface LinkHost {
  /** The channels to be subscribed to at the moment. Empty for SSE, whose address names them. */
  channels(): Iterable<string>;
  readonly ledger: Ledger;
  receive(messages: readonly Incoming[]): void;
  changed(state: LinkState): void;
}

/** The way to the gateway, whoever holds the socket: this tab ({@link connect}), or one of several ({@link connectTabs}). The functions may be taken off it. */
export interface Link {
  /** The channels have changed. */
  readonly sync: () => void;
  readonly send: (text: string) => void;
  /** Tries at once, also after having given up. */
  readonly reconnect: () => void;
  /** The page was shown or hidden, or the network is back: a good moment to look. */
  readonly check: () => void;
  /** Lets go of everything; nobody is told anything after it. */
  readonly close: () => void;
}

/** What it takes to make connections. */
export interface Target {
  readonly page: Page;
  readonly url: URL;
  readonly open: OpenWire;
  readonly options: StreamOptions;
}
