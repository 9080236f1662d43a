import type { Status } from "@millrace/client";
import { type FormEvent, useEffect, useLayoutEffect, useRef, useState } from "react";
import type { Seat, Verdict } from "../council/council.js";
import { useCouncil } from "../council/run.js";
import { cancelCouncil, Refused, startCouncil } from "../council/start.js";
import { useLiveData } from "../model/live.js";
import { hashOf, useRoute } from "../model/route.js";
import { keep, read } from "../model/storage.js";
import { ratio } from "../shared/format.js";
import { Panel } from "../shared/panel.js";
import { Empty, Failure, StatusPill, type Tone } from "../shared/states.js";
import "./council.css";

const PROMPT_MAX = 20_000;
const promptKey = (id: string) => `millrace.council.${id}`;

function explain(error: unknown): string {
  if (!(error instanceof Refused)) return "The gateway does not answer.";
  const { status, message, after } = error;
  if (status === 404) return "This gateway has no council.";
  if (status === 401) return "The council asks for a token. Say who you are, with the button that says Guest.";
  return after === undefined ? message : `${message}. Try again in ${after} s.`;
}

/** Says once, to who listens, what has landed. */
function outcome({ label, score, error }: Seat): string {
  if (error !== undefined) return `${label} failed: ${error}. `;
  return score === undefined ? "" : `${label} says ${ratio(score)}. `;
}

/** How far a model is, in a word. */
function standing({ text, score, error, seconds }: Seat, over: boolean, cancelled: boolean): [Tone, string] {
  if (score !== undefined) return ["good", seconds === undefined ? "Scored" : `${ratio(seconds)} s`];
  if (cancelled) return ["idle", "Cancelled"];
  if (error !== undefined) return ["bad", "Failed"];
  if (over) return ["idle", "No score"];
  return text === "" ? ["idle", "Waiting"] : ["busy", "Speaking"];
}

interface SeatProps {
  seat: Seat;
  over: boolean;
  cancelled: boolean;
}

function SeatColumn({ seat, over, cancelled }: SeatProps) {
  const { label, text, score, reason, error } = seat;
  const words = useRef<HTMLDivElement>(null);
  const follows = useRef(true);
  // Stays at the end while the reader is there, and where they are once they scrolled back.
  // biome-ignore lint/correctness/useExhaustiveDependencies: the text is what makes it longer
  useLayoutEffect(() => {
    const box = words.current;
    if (box && follows.current) box.scrollTop = box.scrollHeight;
  }, [text]);
  const [tone, word] = standing(seat, over, cancelled);
  return (
    <li className="seat">
      <header className="seat-head">
        <h2>{label}</h2>
        <StatusPill tone={tone}>{word}</StatusPill>
      </header>
      <p className="seat-score">
        <span className="figure number">{score === undefined ? "–" : ratio(score)}</span>
        <meter value={score ?? 0} min={0} max={1} aria-label={`Score of ${label}`} />
      </p>
      <p className="seat-reason">{error ?? reason}</p>
      {/* biome-ignore lint/a11y/useSemanticElements: a section would be one more heading for each model */}
      <div
        className="seat-words"
        ref={words}
        role="region"
        aria-label={`What ${label} says`}
        // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reached by keyboard
        tabIndex={0}
        onScroll={({ currentTarget: box }) => {
          follows.current = box.scrollHeight - box.scrollTop - box.clientHeight < 24;
        }}
      >
        {text}
      </div>
    </li>
  );
}

/** The scores on one line, so that agreement is seen at a glance. */
function VerdictPanel({ seats, verdict }: { seats: readonly Seat[]; verdict: Verdict | undefined }) {
  const scored = seats.flatMap(({ model, label, score }) => (score === undefined ? [] : [{ model, label, score }]));
  const line = useRef<HTMLDivElement>(null);
  // Set through the object model: the page's policy forbids inline styles.
  useLayoutEffect(() => {
    for (const mark of line.current?.querySelectorAll<HTMLElement>("[data-at]") ?? []) {
      mark.style.left = `${Number(mark.dataset["at"]) * 100}%`;
    }
  });
  const told = scored.map(({ label, score }) => `${label} ${ratio(score)}`).join(", ");
  return (
    <section className="panel verdict" aria-label="Verdict">
      <dl className="verdict-figures">
        <div>
          <dt>Mean</dt>
          <dd className="figure number">{verdict?.mean === undefined ? "–" : ratio(verdict.mean)}</dd>
        </div>
        <div>
          <dt>Spread</dt>
          <dd className="figure number">{verdict?.spread === undefined ? "–" : ratio(verdict.spread)}</dd>
        </div>
      </dl>
      <div className="scale" ref={line} role="img" aria-label={told === "" ? "No score yet" : `Scores: ${told}`}>
        {scored.map(({ model, score }) => (
          <span key={model} className="scale-mark" data-at={score} />
        ))}
        {verdict?.mean !== undefined && <span className="scale-mean" data-at={verdict.mean} />}
        <span className="scale-end">0</span>
        <span className="scale-end">1</span>
      </div>
    </section>
  );
}

/** A council without a verdict, by its connection. */
const SESSION: Record<Status, string> = {
  idle: "Convening",
  connecting: "Convening",
  open: "In session",
  waiting: "The connection is lost; it goes on where it was",
  offline: "You are offline; it goes on where it was",
  closed: "Ended",
  failed: "Ended",
  complete: "Finished",
};

interface RunProps {
  id: string;
  onRetry: (() => void) | undefined;
}

/** One council: what its models say, and how it ended. */
function Run({ id, onRetry }: RunProps) {
  const { account } = useLiveData();
  const { council, status, error, reconnect } = useCouncil(id, account);
  const [problem, setProblem] = useState<string>();
  const { seats, verdict, demo } = council;
  const cancelled = verdict?.cancelled === true;
  const over = verdict !== undefined || status === "complete" || status === "failed";

  async function cancel(): Promise<void> {
    try {
      await cancelCouncil(id, account); // everybody who listens is told its end
    } catch (failure) {
      setProblem(explain(failure));
    }
  }

  const ended = cancelled || status === "failed";
  const word = verdict ? (cancelled ? "Cancelled" : "Finished") : SESSION[status];
  if (status === "failed" && seats.length === 0) {
    return (
      <section className="panel">
        <Failure title="This council can't be listened to" onRetry={reconnect}>
          {error?.status === 404 ? "It is over, and nobody remembers it." : error?.message}
        </Failure>
      </section>
    );
  }
  return (
    <>
      <div className="council-bar">
        <StatusPill tone={over ? (ended ? "warn" : "good") : "busy"}>{word}</StatusPill>
        {demo && <span className="panel-note">Built-in scorers: no model is configured</span>}
        {problem !== undefined && (
          <span className="panel-note" role="alert">
            {problem}
          </span>
        )}
        <span className="panel-actions">
          {!over && (
            <button type="button" onClick={cancel}>
              Cancel
            </button>
          )}
          {over && onRetry && (
            <button type="button" onClick={onRetry}>
              Ask again
            </button>
          )}
        </span>
      </div>
      <VerdictPanel seats={seats} verdict={verdict} />
      <ul className="seats" aria-label="Models">
        {seats.map((seat) => (
          <SeatColumn key={seat.model} seat={seat} over={over} cancelled={cancelled} />
        ))}
      </ul>
      <div className="unseen" aria-live="polite">
        {seats.map(outcome).join("")}
        {verdict?.mean !== undefined && `The council's mean is ${ratio(verdict.mean)}.`}
      </div>
    </>
  );
}

/** Several models judge a text, side by side. */
export function CouncilView() {
  const { id } = useRoute();
  const { account, council } = useLiveData();
  useEffect(() => {
    if (id !== undefined) council.update(() => id);
  }, [council, id]);
  const [prompt, setPrompt] = useState(() => (id === undefined ? "" : (read(promptKey(id), "sessionStorage") ?? "")));
  const [problem, setProblem] = useState<string>();
  const [starting, setStarting] = useState<AbortController>();
  useEffect(() => () => starting?.abort(), [starting]);

  async function start(): Promise<void> {
    const text = prompt.trim();
    if (text === "" || starting) return;
    const abort = new AbortController();
    setStarting(abort);
    setProblem(undefined);
    try {
      const next = await startCouncil(text, account, abort.signal);
      keep(promptKey(next), text, "sessionStorage");
      location.hash = hashOf("council", next);
    } catch (failure) {
      if (!abort.signal.aborted) setProblem(explain(failure));
    } finally {
      setStarting(undefined);
    }
  }

  function submit(event: FormEvent): void {
    event.preventDefault();
    start();
  }

  return (
    <>
      <div className="page-head">
        <h1>Council</h1>
        <span className="panel-note">several models judge a text, side by side</span>
      </div>
      <Panel title="Text" className="prompt">
        <form onSubmit={submit}>
          <label className="unseen" htmlFor="prompt">
            Text to judge
          </label>
          <textarea
            id="prompt"
            rows={3}
            maxLength={PROMPT_MAX}
            placeholder="A headline, an advertisement, the first paragraph of a script…"
            value={prompt}
            onChange={(event) => setPrompt(event.target.value)}
            onKeyDown={(event) => {
              if (event.key === "Enter" && (event.metaKey || event.ctrlKey)) start();
            }}
          />
          <div className="line">
            <button type="submit" className="primary" disabled={prompt.trim() === "" || starting !== undefined}>
              Evaluate
            </button>
            <span className="hint" role="status">
              {starting ? "Calling the council together…" : (problem ?? "")}
            </span>
          </div>
        </form>
      </Panel>
      {id === undefined ? (
        <section className="panel" aria-label="Models">
          <Empty title="No council is in session">
            Each model gets a column, which fills as it speaks; its score lands when it is done, and the verdict when
            all are.
          </Empty>
        </section>
      ) : (
        <Run key={id} id={id} onRetry={prompt.trim() === "" ? undefined : start} />
      )}
    </>
  );
}
