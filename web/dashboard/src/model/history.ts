/** Points in time with several values each, the oldest dropped. Plain arrays that a chart takes as they are. */
export interface History {
  /** Unix seconds, ascending. */
  readonly times: readonly number[];
  /** A row for each field, as long as `times`. */
  readonly rows: readonly (readonly (number | null)[])[];
}

export const POINTS_MAX = 300;

/** Within it the newest values stand for all: a chart of five minutes has no room for more. */
const STEP_SECONDS = 0.5;

/** What is older than the newest point by more is dropped: a value of hours ago would squeeze the chart into its edge. */
const WINDOW_SECONDS = 900;

export function emptyHistory(fields: number): History {
  return { times: [], rows: Array.from({ length: fields }, () => []) };
}

/** Adds values at a time in milliseconds. A time that is not newer replaces the last point: charts run forward only. */
export function addPoint({ times, rows }: History, atMs: number, values: readonly (number | null)[]): History {
  const at = atMs / 1000;
  const last = times.at(-1);
  const replaces = last !== undefined && at - last < STEP_SECONDS;
  if (last !== undefined && at - last > WINDOW_SECONDS) return addPoint(emptyHistory(rows.length), atMs, values);
  const old = times.findIndex((time) => at - time <= WINDOW_SECONDS);
  const start = replaces ? 0 : Math.max(0, old, times.length + 1 - POINTS_MAX);
  const end = replaces ? times.length - 1 : times.length;
  return {
    times: replaces ? times : [...times.slice(start), at],
    rows: rows.map((row, index) => [...row.slice(start, end), values[index] ?? null]),
  };
}
