import { useSyncExternalStore } from "react";
import { ApiError } from "./api.js";

/** How long an answer may take. The gateway gives itself two seconds. */
const ANSWER_MS = 5_000;

/** What is known: the last answer, why there was none since, and when it came. */
export interface Polled<T> {
  value: T | null;
  error: ApiError | null;
  at: number | null;
}

export interface Poll<T> {
  subscribe(changed: () => void): () => void;
  snapshot(): Polled<T>;
  /** Asks at once, whatever came before. */
  refresh(): void;
}

/**
 * Asks again and again, as long as somebody listens and the page is visible: the next question
 * follows the answer to the last one. It ends when it is told that it may not ask, or that what it
 * asks for is gone, and `refresh` begins anew. `ask` is given what it answered last, to go on from.
 */
export function createPoll<T>(every: number, ask: (signal: AbortSignal, last: T | null) => Promise<T>): Poll<T> {
  const listeners = new Set<() => void>();
  let now: Polled<T> = { value: null, error: null, at: null };
  let timer: ReturnType<typeof setTimeout> | undefined;
  let asking: AbortController | undefined;

  function tell(next: Polled<T>) {
    now = next;
    for (const changed of listeners) changed();
  }

  function rest() {
    clearTimeout(timer);
    asking?.abort();
    asking = undefined;
  }

  async function run() {
    rest();
    const mine = new AbortController();
    asking = mine;
    const limit = setTimeout(() => mine.abort(), ANSWER_MS);
    let next: Polled<T>;
    try {
      next = { value: await ask(mine.signal, now.value), error: null, at: Date.now() };
    } catch (failure) {
      next = { ...now, error: ApiError.of(failure) };
    }
    clearTimeout(limit);
    if (asking !== mine) return;
    asking = undefined;
    tell(next);
    if (listeners.size > 0 && !document.hidden && !isOver()) timer = setTimeout(run, every);
  }

  const isOver = () => now.error !== null && (now.error.denied || now.error.gone);

  function seen() {
    if (document.hidden) rest();
    else if (!isOver()) void run();
  }

  return {
    subscribe(changed) {
      listeners.add(changed);
      if (listeners.size === 1) {
        document.addEventListener("visibilitychange", seen);
        addEventListener("online", seen);
        seen();
      }
      return () => {
        listeners.delete(changed);
        if (listeners.size > 0) return;
        document.removeEventListener("visibilitychange", seen);
        removeEventListener("online", seen);
        rest();
      };
    },
    snapshot: () => now,
    refresh: () => void run(),
  };
}

export function usePoll<T>(poll: Poll<T>): Polled<T> {
  return useSyncExternalStore(poll.subscribe, poll.snapshot, poll.snapshot);
}
