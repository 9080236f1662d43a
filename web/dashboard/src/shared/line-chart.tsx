import { useEffect, useLayoutEffect, useRef } from "react";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { short, timeOfDay } from "./format.js";
import { useTheme } from "./theme.js";

export interface Series {
  label: string;
  /** The name of a custom property of theme.css; `--accent` by default. */
  colour?: string;
  /** Fills the area below. */
  area?: boolean;
  /** Dashes, for a series that is not measured but expected. */
  dashed?: boolean;
  format?: (value: number) => string;
}

interface LineChartProps {
  /** What it shows, for who can't see it; the newest values are added. */
  label: string;
  series: readonly Series[];
  /** The times of all points in Unix seconds, ascending. */
  times: readonly number[];
  /** One row a series, as long as `times`; null where there is no value. */
  values: readonly (readonly (number | null)[])[];
  /** Of the left axis. */
  format?: (value: number) => string;
  /** Draws neither axes nor a readout: a sparkline. */
  bare?: boolean;
  /** The lowest value that the axis reaches down to; by default the axis fits what there is. */
  floor?: number;
  className?: string;
}

const colourOf = (name: string) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** The lowest and highest value that the axis shows. A value that hardly moves is drawn as hardly moving, not blown up to the full height. */
export function rangeOf(low: number | null, high: number | null, floor?: number): [number, number] {
  if (low === null || high === null) return [0, 1];
  const bottom = floor === undefined ? low : Math.min(floor, low);
  // Zeros alone have no height: marks of fractions too small to be written would all say 0.
  if (bottom === high && high === 0) return [0, 1];
  const span = Math.max(high - bottom, Math.abs(high) * 0.05, 1e-9);
  if (floor !== undefined) return [bottom, bottom + span * 1.1];
  const middle = (high + low) / 2;
  return [middle - span * 0.6, middle + span * 0.6];
}

/** What the readout says at a point: the time, and each value. */
function readoutText({ series, times, values }: LineChartProps, at: number): string {
  const time = times[at];
  if (time === undefined) return "";
  const parts = series.flatMap(({ label, format = short }, row) => {
    const value = values[row]?.[at];
    return value === null || value === undefined ? [] : [`${label} ${format(value)}`];
  });
  return [timeOfDay(time * 1000), ...parts].join(" · ");
}

/** Seconds between two marks of time: what a clock shows, and never less than a second. */
const TIME_STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 180, 300, 600, 900, 1800, 3600];

/** A mark of time; none where it would be cut at the edge. */
function timeLabel(plot: uPlot, at: number, room: number): string | null {
  const position = plot.valToPos(at, "x");
  return position < room / 2 || position > plot.over.clientWidth - room ? null : timeOfDay(at * 1000);
}

function optionsOf(props: LineChartProps, size: { width: number; height: number }, hover: (at: number | null) => void) {
  const rem = Number.parseFloat(getComputedStyle(document.documentElement).fontSize);
  const font = `${Math.round(rem * 0.72)}px ${getComputedStyle(document.body).fontFamily}`;
  const axis: uPlot.Axis = {
    stroke: colourOf("--faint"),
    font,
    grid: { stroke: colourOf("--line"), width: 1 },
    ticks: { show: false },
    gap: rem * 0.4,
  };
  const { bare = false, format = short } = props;
  const options: uPlot.Options = {
    ...size,
    legend: { show: false },
    cursor: bare ? { show: false } : { y: false, drag: { x: false, y: false }, points: { size: rem * 0.5 } },
    padding: bare ? [2, 0, 2, 0] : [rem * 0.5, rem * 0.5, 0, 0],
    scales: { y: { range: (_, low, high) => rangeOf(low, high, props.floor) } },
    axes: bare
      ? [{ show: false }, { show: false }]
      : [
          {
            ...axis,
            size: rem * 1.7,
            space: rem * 5,
            grid: { show: false },
            incrs: TIME_STEPS,
            values: (plot, all) => all.map((at) => timeLabel(plot, at, rem * 2)),
          },
          { ...axis, size: rem * 3, space: rem * 2.2, values: (_, all) => all.map(format) },
        ],
    series: [
      {},
      ...props.series.map(({ label, colour = "--accent", area, dashed }) => ({
        label,
        stroke: colourOf(colour),
        width: Math.max(1.5, rem / 9),
        // A line needs two points; one alone is a dot, for which a sparkline has no room at its edge.
        points: { show: (plot: uPlot) => !bare && plot.data[0].length === 1, size: rem * 0.4 },
        ...(area ? { fill: colourOf("--accent-wash") } : {}),
        ...(dashed ? { dash: [4, 4] } : {}),
      })),
    ],
    hooks: { setCursor: [(plot) => hover(plot.cursor.idx ?? null)] },
  };
  return options;
}

/**
 * Lines over time, on a canvas. The size is the container's, which CSS fixes: data never moves the
 * page. It draws at most once a frame, and nothing while the tab is hidden.
 */
export function LineChart(props: LineChartProps) {
  const { label, series, times, values, bare = false, className = "" } = props;
  const theme = useTheme();
  const frame = useRef<HTMLDivElement>(null);
  const readout = useRef<HTMLParagraphElement>(null);
  const plot = useRef<{ draw: () => void } | null>(null);
  const latest = useRef<LineChartProps>(props);
  latest.current = props;
  const shape = JSON.stringify([series.map((one) => [one.label, one.colour, one.area, one.dashed]), bare, props.floor]);

  // biome-ignore lint/correctness/useExhaustiveDependencies: another theme or shape is another plot; the rest is in latest
  useLayoutEffect(() => {
    const box = frame.current;
    if (!box) return;
    let pointed: number | null = null;
    const tell = () => {
      if (!readout.current) return;
      const now = latest.current;
      readout.current.textContent = readoutText(now, pointed ?? now.times.length - 1);
    };
    const hover = (at: number | null) => {
      pointed = at;
      tell();
    };
    const size = () => ({ width: box.clientWidth, height: box.clientHeight });
    const made = new uPlot(optionsOf(latest.current, size(), hover), dataOf(latest.current), box);
    plot.current = {
      draw() {
        made.setData(dataOf(latest.current));
        tell();
      },
    };
    tell();
    const watch = new ResizeObserver(() => made.setSize(size()));
    watch.observe(box);
    return () => {
      watch.disconnect();
      plot.current = null;
      made.destroy();
    };
  }, [theme, shape]);

  // biome-ignore lint/correctness/useExhaustiveDependencies: new data is what is to be drawn; it is read from latest
  useEffect(() => {
    const asked = requestAnimationFrame(() => plot.current?.draw());
    return () => cancelAnimationFrame(asked);
  }, [times, values]);

  return (
    <div className={`chart ${className}`} data-bare={bare || undefined}>
      {!bare && <p className="chart-readout" ref={readout} aria-hidden="true" />}
      <div
        className="chart-frame"
        ref={frame}
        role="img"
        aria-label={`${label}. ${readoutText(props, times.length - 1)}`}
      />
    </div>
  );
}

function dataOf({ times, values }: LineChartProps): uPlot.AlignedData {
  return [times, ...values] as uPlot.AlignedData;
}
