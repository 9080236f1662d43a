import { count, milliseconds, short } from "../shared/format.js";
import { LineChart, type Series } from "../shared/line-chart.js";
import { Panel } from "../shared/panel.js";
import type { Course, History } from "./history.js";

interface Chart {
  title: string;
  label: string;
  series: readonly Series[];
  lines: readonly Exclude<keyof Course, "times">[];
  format: (value: number) => string;
}

const whole = (value: number) => count(Math.round(value));

const CHARTS: readonly Chart[] = [
  {
    title: "Streams",
    label: "Streams by wire",
    series: [
      { label: "SSE", format: whole },
      { label: "WebSocket", colour: "--series-2", format: whole },
    ],
    lines: ["sse", "websocket"],
    format: short,
  },
  {
    title: "Events a second",
    label: "Events a second",
    series: [
      { label: "Delivered", area: true, format: whole },
      { label: "Received", colour: "--series-3", format: whole },
    ],
    lines: ["delivered", "received"],
    format: short,
  },
  {
    title: "Delivery",
    label: "Time from received to written",
    series: [
      { label: "p50", format: milliseconds },
      { label: "p99", colour: "--series-4", format: milliseconds },
    ],
    lines: ["p50", "p99"],
    format: (value) => `${short(value)} ms`,
  },
];

const EMPTY: readonly number[] = [];

/** How the last minutes went. */
export function Charts({ history }: { history: History | null }) {
  return (
    <div className="thirds">
      {CHARTS.map(({ title, label, series, lines, format }) => (
        <Panel key={title} title={title} note={<Legend series={series} />}>
          <LineChart
            label={label}
            series={series}
            times={history?.course.times ?? EMPTY}
            values={lines.map((line) => history?.course[line] ?? EMPTY)}
            format={format}
            floor={0}
          />
        </Panel>
      ))}
    </div>
  );
}

/** Which line is which. The readout above the chart says it in words too. */
function Legend({ series }: { series: readonly Series[] }) {
  return (
    <span className="legend">
      {series.map(({ label, colour = "--accent" }) => (
        <span key={label} className="legend-entry" data-colour={colour.replace(/^--/, "")}>
          {label}
        </span>
      ))}
    </span>
  );
}
