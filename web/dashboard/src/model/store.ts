import { useSyncExternalStore } from "react";

/**
 * A value that events change and components watch. A change is in force at once; observers hear of it
 * before the next frame, once for all changes: events may come by the thousand, a screen shows sixty.
 */
export interface Store<T> {
  readonly get: () => T;
  readonly update: (change: (value: T) => T) => void;
  readonly watch: (observer: () => void) => () => void;
}

/** A hidden tab draws no frames; its title still follows the alerts. */
const HIDDEN_FRAME_MS = 1_000;

function browserFrame(callback: () => void): void {
  if (document.hidden) setTimeout(callback, HIDDEN_FRAME_MS);
  else requestAnimationFrame(callback);
}

export function createStore<T>(initial: T, nextFrame: (callback: () => void) => void = browserFrame): Store<T> {
  let value = initial;
  /** What observers have been told of: what React sees does not change between two frames. */
  let shown = initial;
  let asked = false;
  const observers = new Set<() => void>();
  return {
    get: () => shown,
    update(change) {
      const next = change(value);
      if (Object.is(next, value)) return;
      value = next;
      if (asked) return;
      asked = true;
      nextFrame(() => {
        asked = false;
        shown = value;
        for (const observer of observers) observer();
      });
    },
    watch(observer) {
      observers.add(observer);
      return () => observers.delete(observer);
    },
  };
}

export function useStore<T>(store: Store<T>): T {
  return useSyncExternalStore(store.watch, store.get, store.get);
}
