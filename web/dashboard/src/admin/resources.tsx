import { bytes, count } from "../shared/format.js";
import { Panel } from "../shared/panel.js";
import type { Stats } from "./api.js";
import type { History } from "./history.js";
import { byReason, type Counted, CountTable, Facts } from "./rows.js";

const REASONS = [
  "peer_closed",
  "client_closed",
  "peer_reset",
  "peer_timed_out",
  "silent",
  "stalled",
  "slow",
  "token_expired",
  "drained",
  "disconnected",
  "bug",
];

const others = (stats: Stats) =>
  Object.entries(stats.ended).reduce((sum, [name, count]) => (REASONS.includes(name) ? sum : sum + count), 0);

const ENDED: readonly Counted[] = [
  ...byReason(REASONS, (stats) => stats.ended),
  { label: "Other reasons", means: "See millrace_streams_ended_total in the metrics", counted: others },
];

/** What the process holds, and how streams have ended. */
export function Resources({ history }: { history: History | null }) {
  const stats = history?.stats ?? null;
  const known = (value: (stats: Stats) => string) => (stats ? value(stats) : "–");
  return (
    <Panel title="Process">
      <Facts
        facts={[
          { label: "Resident memory", value: known((one) => bytes(one.memory.residentBytes)) },
          { label: "Heap", value: known((one) => bytes(one.memory.heapBytes)) },
          {
            label: "Replay memory",
            value: known((one) => `${bytes(one.replay.bytes)}, ${count(one.replay.events)} events`),
          },
          { label: "Goroutines", value: known((one) => count(one.memory.goroutines)) },
          { label: "Channels", value: known((one) => count(one.channels.activeChannels)) },
          { label: "Subscriptions", value: known((one) => count(one.channels.totalSubscriptions)) },
        ]}
      />
      <CountTable caption="Streams ended" rows={ENDED} history={history} />
    </Panel>
  );
}
