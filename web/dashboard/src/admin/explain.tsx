import { useMemo, useState } from "react";
import { bytes, count, milliseconds } from "../shared/format.js";
import { Empty, Failure, StatusPill } from "../shared/states.js";
import type { Api, ChannelExplanation, Explanation, Target } from "./api.js";
import { Confirm, type Question } from "./confirm.js";
import { Dialog } from "./dialog.js";
import { createPoll, usePoll } from "./poll.js";
import { type Fact, Facts } from "./rows.js";
import { ageOf, diagnosis, reasonOf, stateOf, wireOf } from "./words.js";

const LOOK_MS = 1_000;

interface ExplainProps {
  api: Api;
  client: string;
  onClose: () => void;
}

/** All that is known of one stream, and what can be done about it. */
export function Explain({ api, client, onClose }: ExplainProps) {
  const poll = useMemo(() => createPoll<Explanation>(LOOK_MS, (signal) => api.explain(client, signal)), [api, client]);
  const { value, error } = usePoll(poll);
  const [question, setQuestion] = useState<Question | null>(null);
  const [told, setTold] = useState("");
  const gone = error?.gone ?? false;
  function done(what: string) {
    setQuestion(null);
    setTold(what);
    poll.refresh();
  }
  return (
    <>
      <Dialog title={`Stream ${client}`} className="explain" onClose={onClose}>
        <button type="button" className="quiet explain-close" onClick={onClose}>
          Close
        </button>
        <p className="explain-told" role="status">
          {[told, gone ? "The stream has ended." : (error?.message ?? "")].filter(Boolean).join(" ")}
        </p>
        {value ? (
          <Explained stream={value} gone={gone} ask={setQuestion} api={api} />
        ) : error ? (
          <Failure title={gone ? "There is no such stream" : "There is no explanation"} onRetry={poll.refresh}>
            {error.message}
          </Failure>
        ) : (
          <Empty title="Asking its loop" />
        )}
      </Dialog>
      {question && <Confirm question={question} onDone={done} onClose={() => setQuestion(null)} />}
    </>
  );
}

/** "1 stream", "3 streams". */
const streams = (number: number) => `${count(number)} ${number === 1 ? "stream" : "streams"}`;

function disconnecting(api: Api, target: Target): Question {
  const whose =
    "user" in target ? `all streams of the user ${target.user}, on every gateway` : `the stream ${target.client}`;
  return {
    title: "user" in target ? "Disconnect this user?" : "Disconnect this stream?",
    text: `This ends ${whose}. A client may connect again: what it may do is its token's to say.`,
    verb: "Disconnect",
    act: async () => {
      const here = streams(await api.disconnect(target));
      return "user" in target ? `${here} disconnected here; the other gateways know.` : `${here} disconnected.`;
    },
  };
}

function unsubscribing(api: Api, target: Target, channel: string): Question {
  return {
    title: "Take this channel away?",
    text: `The client gets nothing more from ${channel}, and is told so. It may subscribe again.`,
    verb: "Unsubscribe",
    act: async () => `${channel} was taken from ${streams(await api.unsubscribe(target, channel))}.`,
  };
}

interface ExplainedProps {
  stream: Explanation;
  gone: boolean;
  api: Api;
  ask: (question: Question) => void;
}

function Explained({ stream, gone, api, ask }: ExplainedProps) {
  const { tone, word, means } = stateOf(stream.state);
  const { client, user } = stream;
  return (
    <>
      <div className="explain-head">
        <StatusPill tone={gone ? "idle" : tone}>{gone ? "Ended" : word}</StatusPill>
        <p>{gone ? "What you see is how it last stood." : `${means} ${diagnosis(stream)}`}</p>
      </div>
      <div className="explain-actions">
        <button type="button" className="danger" disabled={gone} onClick={() => ask(disconnecting(api, { client }))}>
          Disconnect
        </button>
        {user && (
          <button type="button" onClick={() => ask(disconnecting(api, { user }))}>
            Disconnect all of {user}
          </button>
        )}
      </div>
      <h3>Stream</h3>
      <Facts facts={aboutStream(stream)} />
      <h3>Waiting in this process</h3>
      <Queue queue={stream.queue} />
      <Facts facts={aboutQueue(stream)} />
      <h3>With the kernel and the network</h3>
      <Facts facts={aboutPeer(stream)} />
      <h3>Channels</h3>
      <Channels
        channels={stream.channels}
        disabled={gone}
        onTake={(channel) => ask(unsubscribing(api, { client }, channel))}
      />
    </>
  );
}

function aboutStream(stream: Explanation): Fact[] {
  return [
    { label: "User", value: stream.user ?? "anonymous" },
    { label: "Wire", value: wireOf(stream.wire) },
    { label: "From", value: stream.address ?? "this machine" },
    { label: "Connected for", value: stream.greeted ? ageOf(stream) : "not yet" },
  ];
}

const limit = (value: number, text: (value: number) => string) => (value > 0 ? text(value) : "no limit");

function Queue({ queue }: Pick<Explanation, "queue">) {
  if (queue.bytesMax === 0) return null;
  return (
    <meter
      min={0}
      max={queue.bytesMax}
      high={queue.bytesMax * 0.8}
      optimum={0}
      value={Math.min(queue.bytes, queue.bytesMax)}
      aria-label="Of what may wait"
    />
  );
}

function aboutQueue({ queue, dropped, conflated, gapsDue }: Explanation): Fact[] {
  return [
    { label: "Queued", value: `${bytes(queue.bytes)} of ${limit(queue.bytesMax, bytes)}` },
    { label: "Frames", value: count(queue.frames) },
    {
      label: "Oldest waits for",
      value: `${milliseconds(queue.oldestMs)} of ${limit(queue.oldestMsMax, milliseconds)}`,
    },
    { label: "Dropped since behind", value: count(dropped), tone: dropped > 0 ? "bad" : undefined },
    { label: "Conflated since behind", value: count(conflated), tone: conflated > 0 ? "warn" : undefined },
    { label: "Gaps due", value: count(gapsDue), tone: gapsDue > 0 ? "warn" : undefined },
  ];
}

function aboutPeer({ peer }: Explanation): Fact[] {
  return [
    { label: "Not acknowledged (SIOCOUTQ)", value: peer.unackedBytes < 0 ? "not known" : bytes(peer.unackedBytes) },
    { label: "Segments under way", value: count(peer.unackedSegments) },
    { label: "Last progress", value: `${milliseconds(peer.progressMs)} ago` },
    { label: "Round trip", value: `${milliseconds(peer.rttMs)} ± ${milliseconds(peer.rttSpreadMs)}` },
    { label: "Sent again", value: `${count(peer.retransmits)} segments` },
  ];
}

interface ChannelsProps {
  channels: readonly ChannelExplanation[];
  disabled: boolean;
  onTake: (channel: string) => void;
}

function Channels({ channels, disabled, onTake }: ChannelsProps) {
  if (channels.length === 0) return <p className="faint">It has none.</p>;
  return (
    <ul className="channels">
      {channels.map(({ channel, mode, state, position, streams: hear }) => (
        <li key={channel}>
          <p className="channel-name">{channel}</p>
          <p className="faint">
            {reasonOf(state)} · {mode} · {streams(hear)} on its loop
          </p>
          {position && <p className="faint channel-position">at {position}</p>}
          <button
            type="button"
            disabled={disabled}
            onClick={() => onTake(channel)}
            aria-label={`Unsubscribe from ${channel}`}
          >
            Unsubscribe
          </button>
        </li>
      ))}
    </ul>
  );
}
