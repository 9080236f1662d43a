import type { Status, StreamError } from "@millrace/client";
import { createContext, useContext } from "react";
import { type Account, tokenUser } from "./account.js";
import { type Alert, type Alerts, keepAlerts, keptAlerts } from "./alerts.js";
import { type Campaigns, noCampaigns } from "./campaigns.js";
import type { Jobs } from "./jobs.js";
import { keep, read } from "./storage.js";
import { createStore, type Store, useStore } from "./store.js";

/** The connection of the page, as the views show it. */
export interface Connection {
  readonly status: Status;
  readonly error: StreamError | null;
  readonly reconnect: () => void;
}

/** All that the page knows from the gateway. It lives as long as the account: views come and go. */
export interface Live {
  readonly account: Account;
  readonly jobs: Store<Jobs>;
  readonly campaigns: Store<Campaigns>;
  readonly alerts: Store<Alerts>;
  /** Channels that the user asked for beside those that the indexes list. */
  readonly watched: Store<readonly string[]>;
  /** The user as the gateway knows it; null for nobody, undefined while nobody has told. */
  readonly user: Store<string | null | undefined>;
  readonly connection: Store<Connection>;
  /** The alert that came last, to be read out. */
  readonly newest: Store<Alert | undefined>;
  /** The id of the council that was looked at last: the way back to it from another view. */
  readonly council: Store<string | undefined>;
}

const WATCHED_KEY = "millrace.channels";
export const WATCHED_MAX = 20;

function keptWatched(): readonly string[] {
  try {
    const kept: unknown = JSON.parse(read(WATCHED_KEY) ?? "[]");
    return Array.isArray(kept)
      ? kept.filter((one): one is string => typeof one === "string").slice(0, WATCHED_MAX)
      : [];
  } catch {
    return [];
  }
}

export function keepWatched(channels: readonly string[]): void {
  keep(WATCHED_KEY, channels.length > 0 ? JSON.stringify(channels) : null);
}

const alertsKey = (user: string) => `millrace.alerts.${user}`;
/** Who a connection turned out to belong to: a tab that shares another tab's connection is not greeted. */
const userKey = (account: Account) => `millrace.user.${account.userId ?? ""}`;

export function keepUser(account: Account, user: string | null): void {
  keep(userKey(account), user);
}

export function readAlerts(user: string): Alerts {
  return keptAlerts(read(alertsKey(user)));
}

export function writeAlerts(user: string, alerts: Alerts): void {
  keep(alertsKey(user), keepAlerts(alerts));
}

/** Calls back when another tab has written this user's alerts. */
export function watchAlerts(user: string, changed: () => void): () => void {
  const hear = ({ key }: StorageEvent) => {
    if (key === alertsKey(user)) changed();
  };
  addEventListener("storage", hear);
  return () => removeEventListener("storage", hear);
}

export function createLive(account: Account): Live {
  return {
    account,
    jobs: createStore<Jobs>([]),
    campaigns: createStore(noCampaigns),
    alerts: createStore<Alerts>([]),
    watched: createStore(keptWatched()),
    user: createStore<string | null | undefined>(undefined),
    connection: createStore<Connection>({ status: "idle", error: null, reconnect: () => {} }),
    newest: createStore<Alert | undefined>(undefined),
    council: createStore<string | undefined>(undefined),
  };
}

export const LiveContext = createContext<Live | undefined>(undefined);

export function useLiveData(): Live {
  const live = useContext(LiveContext);
  if (!live) throw new Error("a view stands outside of the page");
  return live;
}

/**
 * Whose alerts the page shows. Known from the address or the token before the gateway tells it, so
 * that a first alert finds us listening.
 */
export function useUser(): string | undefined {
  const { account, user } = useLiveData();
  const told = useStore(user);
  if (told !== undefined) return told ?? undefined;
  if (account.token !== undefined) return tokenUser(account.token);
  return account.userId ?? read(userKey(account)) ?? undefined;
}
