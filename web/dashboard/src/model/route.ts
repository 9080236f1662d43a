import { useSyncExternalStore } from "react";

export const VIEWS = ["dashboard", "alerts", "council", "streams"] as const;
export type View = (typeof VIEWS)[number];

export interface Route {
  readonly view: View;
  /** What stands behind the view: a council's id. */
  readonly id: string | undefined;
}

/** `#/council/abc` → the council abc. What is unknown is the dashboard. */
export function routeOf(hash: string): Route {
  const [, view, id] = hash.split("/");
  return {
    view: VIEWS.find((known) => known === view) ?? "dashboard",
    id: id ? decoded(id) : undefined,
  };
}

function decoded(text: string): string | undefined {
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
}

export function hashOf(view: View, id?: string): string {
  return id === undefined ? `#/${view}` : `#/${view}/${encodeURIComponent(id)}`;
}

function watch(changed: () => void): () => void {
  addEventListener("hashchange", changed);
  return () => removeEventListener("hashchange", changed);
}

const hash = () => location.hash;

export function useRoute(): Route {
  return routeOf(useSyncExternalStore(watch, hash, hash));
}
