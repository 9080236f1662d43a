import { useMemo, useState } from "react";
import { Brand, ThemeToggle } from "../shared/controls.js";
import { timeOfDay } from "../shared/format.js";
import { Failure, StatusPill, type Tone } from "../shared/states.js";
import type { Api } from "./api.js";
import { Charts } from "./charts.js";
import { Explain } from "./explain.js";
import { Figures } from "./figures.js";
import { extend, type History } from "./history.js";
import { Loops } from "./loops.js";
import { Losses } from "./losses.js";
import { createPoll, type Polled, usePoll } from "./poll.js";
import { Redis } from "./redis.js";
import { Resources } from "./resources.js";
import { Streams } from "./streams.js";
import { verdict } from "./words.js";

/** Between two looks at the statistics. */
const LOOK_MS = 1_000;

function standing({ value, error }: Polled<History>): { tone: Tone; word: string; text: string } {
  if (error?.denied) return { tone: "bad", word: "Refused", text: error.message };
  if (error) {
    const before = value ? "What you see is from before." : "";
    return { tone: "bad", word: navigator.onLine ? "No answer" : "Offline", text: `${error.message}. ${before}` };
  }
  if (!value) return { tone: "busy", word: "Connecting", text: "Asking the gateway." };
  return verdict(value.stats);
}

/** Says how the gateway stands. Its place has one height whatever it says, so that nothing below moves. */
function Standing({ polled, onRetry }: { polled: Polled<History>; onRetry: () => void }) {
  const { tone, word, text } = standing(polled);
  return (
    <div className="standing" data-tone={tone}>
      <StatusPill tone={tone}>{word}</StatusPill>
      <p className="standing-text">{text}</p>
      <button type="button" onClick={onRetry} disabled={!polled.error}>
        Try now
      </button>
      <span className="standing-time number">{polled.at === null ? "" : timeOfDay(polled.at)}</span>
      {/* Said once when it changes; the text above counts seconds. */}
      <span className="unseen" role="status">
        {tone === "good" ? word : `${word}. ${text}`}
      </span>
    </div>
  );
}

function Denied({ message, onRetry }: { message: string; onRetry: () => void }) {
  return (
    <Failure title="The gateway does not let you in" onRetry={onRetry}>
      <p>{message}</p>
      <p>
        Open this page on the gateway&apos;s own machine, on its admin-listen address, or with a token whose claim admin
        is true: as the cookie millrace_token, or once as /admin?token=TOKEN.
      </p>
    </Failure>
  );
}

/** The operator's page: one gateway, now and in the last minutes. */
export function Page({ api }: { api: Api }) {
  const stats = useMemo(
    () => createPoll<History>(LOOK_MS, async (signal, last) => extend(last, await api.stats(signal), Date.now())),
    [api],
  );
  const polled = usePoll(stats);
  const [explained, setExplained] = useState<string | null>(null);
  const denied = polled.error?.denied ? polled.error : null;
  const history = polled.value;
  return (
    <>
      <a className="skip" href="#main">
        Skip to the content
      </a>
      <header className="bar">
        <Brand>
          <span className="operator">Operator</span>
        </Brand>
        <nav aria-label="Pages">
          <a href="/metrics">Metrics</a>
          <a href="/debug/pprof/">Profiles</a>
        </nav>
        <ThemeToggle />
      </header>
      <main className="page" id="main">
        <h1 className="unseen">This gateway</h1>
        <Standing polled={polled} onRetry={stats.refresh} />
        {denied && !history ? (
          <Denied message={denied.message} onRetry={stats.refresh} />
        ) : (
          <>
            <Figures history={history} />
            <Charts history={history} />
            <Streams api={api} onExplain={setExplained} />
            <div className="thirds">
              <Losses history={history} />
              <Redis history={history} />
              <div className="stack">
                <Loops history={history} />
                <Resources history={history} />
              </div>
            </div>
          </>
        )}
      </main>
      {explained !== null && (
        <Explain key={explained} api={api} client={explained} onClose={() => setExplained(null)} />
      )}
    </>
  );
}
