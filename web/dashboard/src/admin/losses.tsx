import { Panel } from "../shared/panel.js";
import type { History } from "./history.js";
import { byReason, type Counted, CountTable } from "./rows.js";

const GAPS = byReason(
  ["slow", "broker", "trimmed", "rewound", "unknown_position"],
  (stats) => stats.delivery.gapsByReason,
  true,
);

const WITHHELD: readonly Counted[] = [
  {
    label: "Dropped for the slow",
    means: "Events that a slow client does not get; a gap tells it",
    counted: (stats) => stats.delivery.dropped,
    alarms: true,
  },
  {
    label: "Conflated for the slow",
    means: "Events and values that a slow client does not get because it gets a newer one",
    counted: (stats) => stats.delivery.conflated,
  },
  {
    label: "Throttled for everybody",
    means: "Events that nobody gets because of a newer one",
    counted: (stats) => stats.delivery.throttled,
  },
  { label: "Read again from a log", counted: (stats) => stats.delivery.caughtUp },
  { label: "Replayed from memory", counted: (stats) => stats.delivery.replayed },
];

const DROPPED = byReason(
  ["nobody", "wrong_mode", "bad_channel", "too_large", "not_json", "not_utf8", "empty"],
  (stats) => stats.events.dropped,
);

/** What was not delivered as it came, and why. */
export function Losses({ history }: { history: History | null }) {
  return (
    <Panel title="Gaps, drops, conflations">
      <CountTable caption="Gaps told to clients" rows={GAPS} history={history} />
      <CountTable caption="Events not sent as they came" rows={WITHHELD} history={history} />
      <CountTable caption="Published, and for nobody" rows={DROPPED} history={history} />
    </Panel>
  );
}
