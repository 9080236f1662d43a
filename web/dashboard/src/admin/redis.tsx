import { count, milliseconds } from "../shared/format.js";
import { Panel } from "../shared/panel.js";
import { StatusPill } from "../shared/states.js";
import type { BrokerStats } from "./api.js";
import type { History } from "./history.js";
import { type Counted, CountTable, type Fact, Facts } from "./rows.js";

/** From here on the way through Redis and back is long. It is given up after 2.25 s. */
const CANARY_LONG_MS = 250;
/** A horizon rises once a second. */
const HORIZON_OLD_MS = 5_000;

function facts(broker: BrokerStats | null): Fact[] {
  const known = (value: (broker: BrokerStats) => string) => (broker ? value(broker) : "–");
  return [
    {
      label: "Nodes that deliver",
      value: known((one) => `${one.nodesDelivering} of ${one.nodes}`),
      tone: broker && broker.nodesDelivering < broker.nodes ? "bad" : undefined,
    },
    {
      label: "There and back (canary)",
      value: known((one) => (one.canaryMs > 0 ? milliseconds(one.canaryMs) : "–")),
      tone: broker && broker.canaryMs > CANARY_LONG_MS ? "warn" : undefined,
    },
    {
      label: "Logs read up to (horizon)",
      value: known((one) => (one.horizonAgeMs > 0 ? `${milliseconds(one.horizonAgeMs)} ago` : "–")),
      tone: broker && broker.horizonAgeMs > HORIZON_OLD_MS ? "warn" : undefined,
    },
    { label: "Keys tracked", value: known((one) => count(one.tracked)) },
  ];
}

const COUNTS: readonly Counted[] = [
  { label: "Events received", counted: (stats) => stats.broker.events },
  { label: "Published from here", counted: (stats) => stats.broker.published },
  { label: "Publishing failed", counted: (stats) => stats.broker.publishErrors, alarms: true },
  { label: "Reconnects", counted: (stats) => stats.broker.reconnects, alarms: true },
  { label: "Subscriptions lost", counted: (stats) => stats.broker.losses, alarms: true },
  { label: "Keys read", counted: (stats) => stats.broker.reads },
  { label: "Changes told", counted: (stats) => stats.broker.invalidations },
  { label: "Changes found by the sweep", counted: (stats) => stats.broker.sweepFound, alarms: true },
  { label: "Holes in logs", counted: (stats) => stats.broker.holes, alarms: true },
  { label: "Keys of another type", counted: (stats) => stats.broker.wrongTypes, alarms: true },
];

/** Where events come from. */
export function Redis({ history }: { history: History | null }) {
  const broker = history?.stats.broker ?? null;
  const embedded = broker?.kind === "memory";
  return (
    <Panel
      title={embedded ? "Embedded broker" : "Redis"}
      note={embedded ? "No Redis" : ""}
      actions={
        <StatusPill tone={!broker ? "idle" : broker.delivering ? "good" : "bad"}>
          {!broker ? "Unknown" : broker.delivering ? "Delivers" : "Does not deliver"}
        </StatusPill>
      }
    >
      <Facts facts={facts(broker)} />
      <CountTable caption="Counted" rows={COUNTS} history={history} />
    </Panel>
  );
}
