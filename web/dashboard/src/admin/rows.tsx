import { count } from "../shared/format.js";
import type { Stats } from "./api.js";
import { type History, lately } from "./history.js";
import { reasonOf } from "./words.js";

export interface Counted {
  label: string;
  /** What it means, where the label alone does not say it. */
  means?: string;
  counted: (stats: Stats) => number;
  /** It should stay at 0. */
  alarms?: boolean;
}

/** Counts since the gateway's start, and within the last minute. */
export function CountTable({
  caption,
  rows,
  history,
}: {
  caption: string;
  rows: readonly Counted[];
  history: History | null;
}) {
  return (
    <table className="counts">
      <caption>{caption}</caption>
      <thead>
        <tr>
          <th scope="col">
            <span className="unseen">What</span>
          </th>
          <th scope="col">Last minute</th>
          <th scope="col">In all</th>
        </tr>
      </thead>
      <tbody>
        {rows.map(({ label, means, counted, alarms = false }) => {
          const recent = history ? lately(history, counted) : 0;
          return (
            <tr key={label} data-tone={alarms && recent > 0 ? "warn" : undefined}>
              <th scope="row" title={means}>
                {label}
              </th>
              <td className="number">{history ? count(recent) : "–"}</td>
              <td className="number">{history ? count(counted(history.stats)) : "–"}</td>
            </tr>
          );
        })}
      </tbody>
    </table>
  );
}

/** One row for each reason of a fixed set. */
export function byReason(
  names: readonly string[],
  counts: (stats: Stats) => Record<string, number>,
  alarms = false,
): Counted[] {
  return names.map((name) => ({ label: reasonOf(name), counted: (stats) => counts(stats)[name] ?? 0, alarms }));
}

export interface Fact {
  label: string;
  value: string;
  tone?: "warn" | "bad" | undefined;
}

/** Names and values that are no counts. */
export function Facts({ facts }: { facts: readonly Fact[] }) {
  return (
    <dl className="facts">
      {facts.map(({ label, value, tone }) => (
        <div key={label} data-tone={tone}>
          <dt>{label}</dt>
          <dd className="number">{value}</dd>
        </div>
      ))}
    </dl>
  );
}
