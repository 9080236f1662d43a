import type { Stats } from "./api.js";

/** How many points the charts show: five minutes of one a second. */
export const POINTS_MAX = 300;
/** How long the page remembers whole answers, to say what happened lately. */
const LATELY_MS = 60_000;
/** A longer time without an answer is a hole in the lines, not a straight one over it. */
const HOLE_MS = 5_000;

type Line = readonly (number | null)[];

/** What the charts draw. Each line is as long as `times`, which are Unix seconds. */
export interface Course {
  times: readonly number[];
  sse: Line;
  websocket: Line;
  delivered: Line;
  received: Line;
  p50: Line;
  p99: Line;
}

/** What is counted up, a second. null until there are two answers of one life of the gateway. */
export interface Rates {
  delivered: number;
  received: number;
  turns: number[];
  bytesWritten: number[];
}

interface Mark {
  at: number;
  stats: Stats;
}

export interface History {
  stats: Stats;
  course: Course;
  rates: Rates | null;
  /** The answers of the last minute, the oldest first; the last is `stats`. */
  marks: readonly Mark[];
}

const nothing: Course = { times: [], sse: [], websocket: [], delivered: [], received: [], p50: [], p99: [] };

const delivered = (stats: Stats) => stats.sse.totalEvents + stats.websocket.totalEvents;

function ratesBetween(before: Mark, after: Mark): Rates | null {
  const seconds = (after.at - before.at) / 1000;
  // Another life of the gateway counts from 0.
  if (seconds <= 0 || after.stats.uptimeSeconds < before.stats.uptimeSeconds) return null;
  const rate = (from: number, to: number) => Math.max(0, to - from) / seconds;
  return {
    delivered: rate(delivered(before.stats), delivered(after.stats)),
    received: rate(before.stats.events.received, after.stats.events.received),
    turns: after.stats.loops.map((loop, index) => rate(before.stats.loops[index]?.turns ?? 0, loop.turns)),
    bytesWritten: after.stats.loops.map((loop, index) =>
      rate(before.stats.loops[index]?.bytesWritten ?? 0, loop.bytesWritten),
    ),
  };
}

type Point = { [name in Exclude<keyof Course, "times">]: number | null };

const hole: Point = { sse: null, websocket: null, delivered: null, received: null, p50: null, p99: null };

function drawn(course: Course, at: number, point: Point): Course {
  const add = (line: Line, value: number | null) => [...line.slice(-POINTS_MAX + 1), value];
  return {
    times: [...course.times.slice(-POINTS_MAX + 1), at / 1000],
    sse: add(course.sse, point.sse),
    websocket: add(course.websocket, point.websocket),
    delivered: add(course.delivered, point.delivered),
    received: add(course.received, point.received),
    p50: add(course.p50, point.p50),
    p99: add(course.p99, point.p99),
  };
}

/** Adds an answer that came at a time in milliseconds. */
export function extend(history: History | null, stats: Stats, at: number): History {
  const mark = { at, stats };
  const before = history?.marks.at(-1);
  const rates = before ? ratesBetween(before, mark) : null;
  const { recent } = stats.delivery;
  let course = history?.course ?? nothing;
  const late = before !== undefined && at - before.at > HOLE_MS;
  if (before && (late || !rates)) course = drawn(course, before.at + 1, hole);
  course = drawn(course, at, {
    sse: stats.sse.totalConnections,
    websocket: stats.websocket.totalConnections,
    delivered: late ? null : (rates?.delivered ?? null),
    received: late ? null : (rates?.received ?? null),
    p50: recent.deliveries > 0 ? recent.p50Ms : null,
    p99: recent.deliveries > 0 ? recent.p99Ms : null,
  });
  const kept = rates ? (history?.marks ?? []).filter((one) => at - one.at <= LATELY_MS) : [];
  return { stats, course, rates, marks: [...kept, mark] };
}

/** How much a count has risen within the last minute, as far as this page has watched. */
export function lately(history: History, counted: (stats: Stats) => number): number {
  const oldest = history.marks[0];
  return oldest ? Math.max(0, counted(history.stats) - counted(oldest.stats)) : 0;
}
