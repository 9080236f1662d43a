import { bytes, count, milliseconds, short } from "../shared/format.js";
import { Panel } from "../shared/panel.js";
import type { History } from "./history.js";

/** From here on a loop lets events wait. */
const LAG_LONG_MS = 50;

/** The event loops, each with its share of the streams. */
export function Loops({ history }: { history: History | null }) {
  const loops = history?.stats.loops ?? [];
  return (
    <Panel title="Loops" note={history ? count(loops.length) : ""}>
      <div className="scroll loops">
        <table>
          <thead>
            <tr>
              <th scope="col">Loop</th>
              <th scope="col">Streams</th>
              <th scope="col">Turns/s</th>
              <th scope="col">Written/s</th>
              <th scope="col">Queued</th>
              <th scope="col">Lag</th>
            </tr>
          </thead>
          <tbody>
            {loops.map((loop, index) => (
              // biome-ignore lint/suspicious/noArrayIndexKey: a loop is known by its number
              <tr key={index} data-tone={loop.lagMs > LAG_LONG_MS ? "warn" : undefined}>
                <th scope="row">{index}</th>
                <td className="number">{count(loop.streams)}</td>
                <td className="number">{short(history?.rates?.turns[index] ?? 0)}</td>
                <td className="number">{bytes(history?.rates?.bytesWritten[index] ?? 0)}</td>
                <td className="number">{bytes(loop.queuedBytes)}</td>
                <td className="number">{milliseconds(loop.lagMs)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </Panel>
  );
}
