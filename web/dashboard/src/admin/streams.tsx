import { type FormEvent, useId, useMemo, useState } from "react";
import { bytes, count, milliseconds } from "../shared/format.js";
import { Panel } from "../shared/panel.js";
import { Empty, Failure, StatusPill } from "../shared/states.js";
import type { Api, StreamList, StreamSummary } from "./api.js";
import { find } from "./find.js";
import { createPoll, type Polled, usePoll } from "./poll.js";
import { ageOf, stateOf, wireOf } from "./words.js";

/** Between two looks at the list: it makes every loop look at its streams. */
const LOOK_MS = 2_000;

type Shown = "slow" | "notable";

interface StreamsProps {
  api: Api;
  onExplain: (client: string) => void;
}

/** The streams that an operator should look at, or looks for. */
export function Streams({ api, onExplain }: StreamsProps) {
  const [shown, setShown] = useState<Shown>("slow");
  const [sought, setSought] = useState("");
  const poll = useMemo(
    () =>
      createPoll<StreamList>(LOOK_MS, (signal) =>
        sought ? find(api, sought, signal) : api.streams(shown === "slow" ? { slow: "1" } : {}, signal),
      ),
    [api, shown, sought],
  );
  const polled = usePoll(poll);
  return (
    <Panel
      title={sought ? `Streams of ${sought}` : "Slow clients"}
      note={<Count list={polled.value} />}
      className="streams"
    >
      <div className="streams-tools">
        <Search sought={sought} onSeek={setSought} />
        <fieldset className="switch" disabled={sought !== ""}>
          <legend className="unseen">Which streams</legend>
          <Choice value="slow" shown={shown} onChoose={setShown} label="Slow" />
          <Choice value="notable" shown={shown} onChoose={setShown} label="All but live" />
        </fieldset>
      </div>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: who has no mouse scrolls it by the keyboard */}
      <section className="scroll streams-list" aria-label="The list" tabIndex={0}>
        <Body polled={polled} sought={sought} onExplain={onExplain} onRetry={poll.refresh} />
      </section>
    </Panel>
  );
}

function Count({ list }: { list: StreamList | null }) {
  if (!list) return null;
  const listed = list.streams.length;
  const of = list.matched > listed ? `the worst ${count(listed)} of ${count(list.matched)}` : count(listed);
  return `${of}, out of ${count(list.open)} open`;
}

interface ChoiceProps {
  value: Shown;
  shown: Shown;
  onChoose: (value: Shown) => void;
  label: string;
}

function Choice({ value, shown, onChoose, label }: ChoiceProps) {
  return (
    <label>
      <input type="radio" name="shown" checked={shown === value} onChange={() => onChoose(value)} />
      <span>{label}</span>
    </label>
  );
}

function Search({ sought, onSeek }: { sought: string; onSeek: (text: string) => void }) {
  const [text, setText] = useState("");
  const id = useId();
  function seek(event: FormEvent) {
    event.preventDefault();
    onSeek(text.trim());
  }
  function forget() {
    setText("");
    onSeek("");
  }
  return (
    <search className="search">
      <form className="line" onSubmit={seek}>
        <label htmlFor={id} className="unseen">
          User, client or channel
        </label>
        <input
          id={id}
          type="search"
          value={text}
          placeholder="User, client or channel"
          autoComplete="off"
          spellCheck={false}
          maxLength={255}
          onChange={(event) => setText(event.target.value)}
        />
        <button type="submit">Find</button>
        <button type="button" className="quiet" onClick={forget} disabled={text === "" && sought === ""}>
          Clear
        </button>
      </form>
    </search>
  );
}

interface BodyProps {
  polled: Polled<StreamList>;
  sought: string;
  onExplain: (client: string) => void;
  onRetry: () => void;
}

function Body({ polled: { value, error }, sought, onExplain, onRetry }: BodyProps) {
  if (error && (!value || error.status === 400)) {
    return (
      <Failure title="There is no list" onRetry={onRetry}>
        {error.message}
      </Failure>
    );
  }
  if (!value) return <Empty title="Looking" />;
  if (value.streams.length === 0) {
    return sought ? (
      <Empty title={`Nothing is called ${sought} here`}>
        Each gateway knows its own streams only: ask the others too. A user or a client is found by the whole id, a
        channel by its whole name.
      </Empty>
    ) : (
      <Empty title="Every client keeps up">Who does not read what it is sent is listed here.</Empty>
    );
  }
  return <Table streams={value.streams} onExplain={onExplain} />;
}

function Table({ streams, onExplain }: { streams: readonly StreamSummary[]; onExplain: (client: string) => void }) {
  return (
    <table className="streams-table">
      <thead>
        <tr>
          <th scope="col">Client</th>
          <th scope="col" className="wide">
            User
          </th>
          <th scope="col">State</th>
          <th scope="col" className="amount">
            Queued
          </th>
          <th scope="col" className="amount">
            <abbr title="How long ago its socket last took something">Progress</abbr>
          </th>
          <th scope="col" className="amount wide">
            Channels
          </th>
          <th scope="col" className="wide">
            Wire
          </th>
          <th scope="col" className="wide">
            From
          </th>
          <th scope="col" className="amount wide">
            Age
          </th>
        </tr>
      </thead>
      <tbody>
        {streams.map((stream) => (
          <Row key={stream.client} stream={stream} onExplain={onExplain} />
        ))}
      </tbody>
    </table>
  );
}

function Row({ stream, onExplain }: { stream: StreamSummary; onExplain: (client: string) => void }) {
  const { tone, word } = stateOf(stream.state);
  return (
    <tr>
      <th scope="row">
        <button
          type="button"
          className="link"
          onClick={() => onExplain(stream.client)}
          aria-label={`Explain ${stream.client}`}
        >
          {stream.client}
        </button>
        <span className="narrow faint">{stream.user ?? "anonymous"}</span>
      </th>
      <td className="wide">{stream.user ?? <span className="faint">anonymous</span>}</td>
      <td>
        <StatusPill tone={tone}>{word}</StatusPill>
      </td>
      <td className="amount number">{bytes(stream.queuedBytes)}</td>
      <td className="amount number">{milliseconds(stream.progressMs)}</td>
      <td className="amount number wide">{count(stream.subscriptions)}</td>
      <td className="wide">{wireOf(stream.wire)}</td>
      <td className="wide number">{stream.address ?? "this machine"}</td>
      <td className="amount number wide">{ageOf(stream)}</td>
    </tr>
  );
}
