import { bytes, count, milliseconds, short } from "../shared/format.js";
import type { Stats } from "./api.js";
import { type History, lately } from "./history.js";

interface FigureProps {
  label: string;
  /** null: not known yet. */
  value: string | null;
  note: string;
  warns?: boolean;
}

function Figure({ label, value, note, warns = false }: FigureProps) {
  return (
    <div className="headline" data-tone={warns ? "warn" : undefined}>
      <dt>{label}</dt>
      <dd className="headline-value number">{value ?? "–"}</dd>
      <dd className="headline-note number">{note}</dd>
    </div>
  );
}

/** Below it, what the process holds for itself outweighs what it holds for streams. */
const STREAMS_TO_DIVIDE_BY = 1_000;

function memoryNote({ residentBytes, heapBytes }: Stats["memory"], streams: number): string {
  return streams >= STREAMS_TO_DIVIDE_BY ? `${bytes(residentBytes / streams)} a stream` : `${bytes(heapBytes)} heap`;
}

/** The numbers that an operator looks at first. */
export function Figures({ history }: { history: History | null }) {
  if (!history) {
    const labels = ["Streams", "Events a second", "Delivery, p99", "Streams behind", "Gaps, last minute", "Memory"];
    return (
      <dl className="headlines">
        {labels.map((label) => (
          <Figure key={label} label={label} value={null} note="" />
        ))}
      </dl>
    );
  }
  const { stats, rates } = history;
  const { recent, behind, closed, gaps } = stats.delivery;
  const streams = stats.sse.totalConnections + stats.websocket.totalConnections;
  const newGaps = lately(history, (one) => one.delivery.gaps);
  return (
    <dl className="headlines">
      <Figure
        label="Streams"
        value={count(streams)}
        note={`SSE ${short(stats.sse.totalConnections)} · WS ${short(stats.websocket.totalConnections)}`}
      />
      <Figure
        label="Events a second"
        value={rates ? count(Math.round(rates.delivered)) : null}
        note={rates ? `${count(Math.round(rates.received))} received` : ""}
      />
      <Figure
        label="Delivery, p99"
        value={recent.deliveries > 0 ? milliseconds(recent.p99Ms) : null}
        note={recent.deliveries > 0 ? `p50 ${milliseconds(recent.p50Ms)}` : "Nothing delivered lately"}
      />
      <Figure
        label="Streams behind"
        value={count(behind)}
        note={`${count(closed)} closed as too slow`}
        warns={behind > 0}
      />
      <Figure label="Gaps, last minute" value={count(newGaps)} note={`${count(gaps)} in all`} warns={newGaps > 0} />
      <Figure label="Memory" value={bytes(stats.memory.residentBytes)} note={memoryNote(stats.memory, streams)} />
    </dl>
  );
}
