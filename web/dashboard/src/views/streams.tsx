import type { Message, Notice } from "@millrace/client";
import { type Live, useSSE, useWebSocket } from "@millrace/react";
import { type FormEvent, memo, useEffect, useState } from "react";
import { authorization, withUser } from "../model/account.js";
import { fieldsOf, isChannel, textIn } from "../model/fields.js";
import { useLiveData } from "../model/live.js";
import { keep, read } from "../model/storage.js";
import { createStore, type Store, useStore } from "../model/store.js";
import { count, timeOfDay } from "../shared/format.js";
import { LineChart } from "../shared/line-chart.js";
import { Panel } from "../shared/panel.js";
import { Empty, LinkPill } from "../shared/states.js";
import "./streams.css";

interface Entry {
  readonly key: number;
  readonly at: number;
  readonly kind: "event" | "gap" | "deleted" | "complete" | "notice";
  readonly type: string;
  readonly channel: string;
  readonly id: string | undefined;
  /** What was said as JSON, cut at {@link TEXT_MAX}. */
  readonly text: string;
  /** How many characters it had. */
  readonly length: number;
}

/** What came over a wire: the newest entries first, and counts. */
interface Heard {
  readonly entries: readonly Entry[];
  readonly events: number;
  readonly gaps: number;
}

const ENTRIES_MAX = 60;
/** Characters of a message that are kept, and that the closed row shows the beginning of. */
const TEXT_MAX = 16_384;
const LINE_MAX = 400;
const CHANNELS_MAX = 20;
const RATE_SECONDS = 60;
const nothing: Heard = { entries: [], events: 0, gaps: 0 };

function entryOf(message: Message | Notice, key: number): Entry {
  const { kind, channel = "" } = message;
  const told = kind === "event" || kind === "notice" || kind === "complete" ? message.data : message;
  const type = kind === "event" || kind === "notice" ? message.type : kind;
  const text = JSON.stringify(told) ?? "";
  return {
    key,
    at: Date.now(),
    kind,
    type,
    channel,
    id: "id" in message ? message.id : undefined,
    text: text.slice(0, TEXT_MAX),
    length: text.length,
  };
}

let entryKeys = 0;

function record(store: Store<Heard>, message: Message | Notice): void {
  if (message.kind === "notice" && message.type === "pong") return;
  const entry = entryOf(message, ++entryKeys);
  store.update(({ entries, events, gaps }) => ({
    entries: [entry, ...entries.slice(0, ENTRIES_MAX - 1)],
    events: events + (entry.kind === "event" ? 1 : 0),
    gaps: gaps + (entry.kind === "gap" ? 1 : 0),
  }));
}

/** Events in each of the last seconds, counted once a second. */
function useRate(heard: Store<Heard>): { times: readonly number[]; rates: readonly number[] } {
  const [rate, setRate] = useState<{ times: readonly number[]; rates: readonly number[]; before: number }>({
    times: [],
    rates: [],
    before: 0,
  });
  useEffect(() => {
    const timer = setInterval(() => {
      const { events } = heard.get();
      const now = Math.floor(Date.now() / 1000);
      setRate(({ times, rates, before }) => ({
        times: [...times.slice(1 - RATE_SECONDS), now],
        rates: [...rates.slice(1 - RATE_SECONDS), events - before],
        before: events,
      }));
    }, 1000);
    return () => clearInterval(timer);
  }, [heard]);
  return rate;
}

/** All of a message on lines of their own; what was cut is told. */
function whole({ text, length }: Entry): string {
  if (text === "") return "";
  if (length <= text.length) return JSON.stringify(JSON.parse(text), null, 2);
  return `${text}…\n(the first ${count(text.length)} of ${count(length)} characters)`;
}

/** A message: its beginning on one line, and all of it, with its id, once it was opened. */
const EntryRow = memo(function EntryRow({ entry }: { entry: Entry }) {
  const { at, kind, type, channel, text, id } = entry;
  const [open, setOpen] = useState(false);
  return (
    <li className="entry" data-kind={kind}>
      <details onToggle={({ currentTarget }) => setOpen(currentTarget.open)}>
        <summary>
          <span className="entry-time number">{timeOfDay(at)}</span>
          <strong className="entry-type">{type}</strong>
          <span className="entry-channel">{channel}</span>
          {!open && <code className="entry-text">{text.slice(0, LINE_MAX)}</code>}
        </summary>
        {open && id !== undefined && <p className="entry-id">{id}</p>}
        {open && <pre className="entry-whole">{whole(entry)}</pre>}
      </details>
    </li>
  );
});

function WirePanel({ title, live, heard }: { title: string; live: Live<unknown>; heard: Store<Heard> }) {
  const { entries, events, gaps } = useStore(heard);
  const { times, rates } = useRate(heard);
  return (
    <Panel title={title} actions={<LinkPill status={live.status} />} className="wire">
      <dl className="figures wire-figures">
        <div>
          <dt>Events</dt>
          <dd className="number">{count(events)}</dd>
        </div>
        <div>
          <dt>Gaps</dt>
          <dd className="number">{count(gaps)}</dd>
        </div>
        <div>
          <dt>Per second</dt>
          <dd className="number">{count(rates.at(-1) ?? 0)}</dd>
        </div>
        <LineChart
          bare
          label={`Events per second over ${title}`}
          series={[{ label: "Events", area: true }]}
          times={times}
          values={[rates]}
          floor={0}
        />
      </dl>
      {live.status === "failed" && live.error && (
        <p className="wire-error" role="alert">
          {live.error.message}{" "}
          <button type="button" onClick={live.reconnect}>
            Try again
          </button>
        </p>
      )}
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reached by keyboard */}
      <ol className="entries" tabIndex={0} aria-label={`Messages over ${title}`}>
        {entries.map((entry) => (
          <EntryRow key={entry.key} entry={entry} />
        ))}
      </ol>
    </Panel>
  );
}

/** Both wires side by side, each with a connection of its own. */
function Wires({ channels }: { channels: readonly string[] }) {
  const { account } = useLiveData();
  const [overSSE] = useState(() => createStore(nothing));
  const [overSocket] = useState(() => createStore(nothing));
  const query = channels.map((channel) => `channel=${encodeURIComponent(channel)}`).join("&");
  const stream = withUser("/api/stream", account);
  const sse = useSSE(`${stream}${stream.includes("?") ? "&" : "?"}${query}`, {
    share: false,
    onMessage: (message) => record(overSSE, message),
    onNotice: (notice) => record(overSSE, notice),
  });
  const socket = useWebSocket(withUser("/ws", account), {
    channels,
    share: false,
    onMessage: (message) => record(overSocket, message),
    onNotice: (notice) => record(overSocket, notice),
  });
  return (
    <div className="wires">
      <WirePanel title="Server-Sent Events" live={sse} heard={overSSE} />
      <WirePanel title="WebSocket" live={socket} heard={overSocket} />
    </div>
  );
}

function Publish({ channel: suggested }: { channel: string }) {
  const { account } = useLiveData();
  const [answer, setAnswer] = useState<{ text: string; failed: boolean }>({ text: "", failed: false });

  async function submit(event: FormEvent<HTMLFormElement>): Promise<void> {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    let payload: unknown;
    try {
      payload = JSON.parse(String(form.get("payload")));
    } catch {
      setAnswer({ text: "This is not JSON", failed: true });
      return;
    }
    try {
      const response = await fetch(withUser("/api/publish", account), {
        method: "POST",
        headers: { "Content-Type": "application/json", ...authorization(account) },
        body: JSON.stringify({ channel: String(form.get("channel")).trim(), event: payload }),
      });
      const told = fieldsOf(await response.json().catch(() => undefined));
      const failure = textIn(fieldsOf(told["error"]), "message") ?? `Refused with ${response.status}`;
      const success = told["distributed"] === false ? "Published here only: Redis is away" : "Published";
      setAnswer({ text: response.ok ? success : failure, failed: !response.ok });
    } catch {
      setAnswer({ text: "The gateway does not answer", failed: true });
    }
  }

  return (
    <Panel title="Publish" className="publish">
      <form onSubmit={submit}>
        <label htmlFor="publish-channel">Channel</label>
        <input
          id="publish-channel"
          name="channel"
          key={suggested}
          defaultValue={suggested}
          maxLength={255}
          required
          autoComplete="off"
          spellCheck={false}
        />
        <label htmlFor="publish-payload">Event, as JSON</label>
        <textarea
          id="publish-payload"
          name="payload"
          rows={2}
          required
          spellCheck={false}
          defaultValue={'{"type":"hello","text":"from the page"}'}
        />
        <div className="line">
          <button type="submit" className="primary">
            Publish
          </button>
          <output className="hint" data-failed={answer.failed || undefined} htmlFor="publish-channel publish-payload">
            {answer.text}
          </output>
        </div>
      </form>
    </Panel>
  );
}

const CHANNELS_KEY = "millrace.streams";
const SUGGESTIONS = ["system:millrace", "campaign_metrics:index", "jobs:index"];

function keptChannels(): readonly string[] {
  return (read(CHANNELS_KEY, "sessionStorage") ?? "").split(" ").filter(isChannel).slice(0, CHANNELS_MAX);
}

/** Any channel on both wires, and an event of one's own: what the gateway does, seen from outside. */
export function StreamsView() {
  const [channels, setChannels] = useState(keptChannels);

  function change(next: readonly string[]): void {
    setChannels(next);
    keep(CHANNELS_KEY, next.length > 0 ? next.join(" ") : null, "sessionStorage");
  }

  function add(channel: string): void {
    if (!channels.includes(channel)) change([...channels, channel].slice(-CHANNELS_MAX));
  }

  function subscribe(event: FormEvent<HTMLFormElement>): void {
    event.preventDefault();
    const form = event.currentTarget;
    const input = form.elements.namedItem("channel") as HTMLInputElement;
    const channel = input.value.trim();
    input.setCustomValidity(isChannel(channel) ? "" : "A channel is type:id or type:id:user");
    if (!form.reportValidity()) return;
    add(channel);
    form.reset();
  }

  return (
    <>
      <div className="page-head">
        <h1>Streams</h1>
        <span className="panel-note">any channel, on both wires</span>
      </div>
      <div className="streams-head">
        <Panel title="Channels" className="channels">
          <form className="line" onSubmit={subscribe} noValidate>
            <label className="unseen" htmlFor="stream-channel">
              Channel to subscribe to
            </label>
            <input
              id="stream-channel"
              name="channel"
              placeholder="job_progress:job_123"
              maxLength={255}
              autoComplete="off"
              autoCapitalize="off"
              spellCheck={false}
              onInput={(event) => event.currentTarget.setCustomValidity("")}
            />
            <button type="submit" className="primary">
              Subscribe
            </button>
          </form>
          <ul className="chips" aria-label="Subscribed channels">
            {channels.map((channel) => (
              <li key={channel} className="chip">
                <span className="chip-name">{channel}</span>
                <button
                  type="button"
                  aria-label={`Unsubscribe from ${channel}`}
                  onClick={() => change(channels.filter((one) => one !== channel))}
                >
                  ×
                </button>
              </li>
            ))}
          </ul>
        </Panel>
        <Publish channel={channels.at(-1) ?? "job_progress:job_123"} />
      </div>
      {channels.length > 0 ? (
        <Wires channels={channels} />
      ) : (
        <section className="panel" aria-label="Messages">
          <Empty title="No channel is subscribed">
            <p>Name one above, or begin with one of these:</p>
            <p className="suggestions">
              {SUGGESTIONS.map((channel) => (
                <button key={channel} type="button" onClick={() => add(channel)}>
                  {channel}
                </button>
              ))}
            </p>
          </Empty>
        </section>
      )}
    </>
  );
}
