import { fieldsOf, numberIn } from "../model/fields.js";

/** One model of the council, and what it has said. */
export interface Seat {
  readonly model: string;
  readonly label: string;
  readonly text: string;
  /** From 0 to 1. */
  readonly score: number | undefined;
  readonly reason: string | undefined;
  readonly error: string | undefined;
  readonly seconds: number | undefined;
}

export interface Verdict {
  readonly mean: number | undefined;
  /** Between the lowest and the highest score. */
  readonly spread: number | undefined;
  /** Somebody ended it before all had spoken. */
  readonly cancelled: boolean;
}

export interface Council {
  /** Whether the gateway's built-in scorers speak, for want of models. */
  readonly demo: boolean;
  readonly seats: readonly Seat[];
  /** Once all have spoken. */
  readonly verdict: Verdict | undefined;
}

export const nobody: Council = { demo: false, seats: [], verdict: undefined };

/** A model that says more is cut: nobody reads on, and the page must not grow for ever. */
const TEXT_MAX = 100_000;
const SEATS_MAX = 12;

function textOf(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}

function seatOf(model: string, label = model): Seat {
  return { model, label, text: "", score: undefined, reason: undefined, error: undefined, seconds: undefined };
}

/** Takes the greeting: who sits there. Who was known before keeps what was said: a greeting also begins a resumed stream. */
export function greet(council: Council, data: unknown): Council {
  const { models, demo } = fieldsOf(data);
  if (!Array.isArray(models)) return council;
  const seats = models.slice(0, SEATS_MAX).flatMap((one) => {
    const { model, label } = fieldsOf(one);
    const name = textOf(model);
    if (name === undefined) return [];
    return council.seats.find((seat) => seat.model === name) ?? seatOf(name, textOf(label));
  });
  return { ...council, demo: demo === true, seats };
}

/** Takes what one model said: a chunk, all of its text so far, its score, or why it failed. */
export function hear(council: Council, data: unknown): Council {
  const fields = fieldsOf(data);
  const model = textOf(fields["model"]);
  if (model === undefined) return council;
  const at = council.seats.findIndex((seat) => seat.model === model);
  if (at < 0 && council.seats.length >= SEATS_MAX) return council;
  const seat = council.seats[at] ?? seatOf(model);
  const text = textOf(fields["text"]) ?? seat.text + (textOf(fields["chunk"]) ?? "");
  const next: Seat = {
    ...seat,
    text: text.slice(0, TEXT_MAX),
    score: scoreIn(fields, "score") ?? seat.score,
    reason: textOf(fields["reason"]) ?? seat.reason,
    error: textOf(fields["error"]) ?? seat.error,
  };
  return { ...council, seats: at < 0 ? [...council.seats, next] : council.seats.with(at, next) };
}

function scoreIn(fields: ReturnType<typeof fieldsOf>, name: string): number | undefined {
  const score = numberIn(fields, name);
  return score === undefined ? undefined : Math.min(1, Math.max(0, score));
}

/** Takes the end: every score, the time each took, and the verdict. */
export function conclude(council: Council, data: unknown): Council {
  const fields = fieldsOf(data);
  const [scores, times, errors] = ["scores", "times", "errors"].map((name) => fieldsOf(fields[name]));
  const seats = council.seats.map((seat) => ({
    ...seat,
    score: scoreIn(scores ?? {}, seat.model) ?? seat.score,
    seconds: numberIn(times ?? {}, seat.model) ?? seat.seconds,
    error: textOf(errors?.[seat.model]) ?? seat.error,
  }));
  const cancelled = fields["cancelled"] === true;
  return {
    ...council,
    seats,
    verdict: { mean: numberIn(fields, "mean"), spread: numberIn(fields, "spread"), cancelled },
  };
}
