import { type FormEvent, memo, useState } from "react";
import { type Campaign, METRICS } from "../model/campaigns.js";
import { isChannel } from "../model/fields.js";
import { type Job, type JobStatus, secondsLeft } from "../model/jobs.js";
import { keepWatched, useLiveData, WATCHED_MAX } from "../model/live.js";
import { useStore } from "../model/store.js";
import { count, duration, ratio, timeOfDay, wholePercent } from "../shared/format.js";
import { LineChart } from "../shared/line-chart.js";
import { Panel } from "../shared/panel.js";
import { Empty, StatusPill, type Tone } from "../shared/states.js";
import "./dashboard.css";

const JOB_STATUS: Record<JobStatus, { tone: Tone; word: string }> = {
  queued: { tone: "idle", word: "Queued" },
  processing: { tone: "busy", word: "Rendering" },
  complete: { tone: "good", word: "Done" },
  failed: { tone: "bad", word: "Failed" },
};

const JobRow = memo(function JobRow({ job }: { job: Job }) {
  const { tone, word } = JOB_STATUS[job.status];
  const left = secondsLeft(job);
  const running = job.status === "processing";
  const pace = [
    running && job.fps !== undefined && `${count(job.fps)} fps`,
    running && job.speed !== undefined && `${ratio(job.speed)}×`,
    !running && job.frames !== undefined && `${count(job.frames)} frames`,
    !running && job.format,
  ];
  return (
    <li className="job" data-status={job.status}>
      <span className="job-name">
        <strong>{job.id}</strong>
        <span className="job-pace number">{pace.filter(Boolean).join(" · ")}</span>
      </span>
      <StatusPill tone={tone}>{word}</StatusPill>
      <span className="job-progress">
        <progress value={job.progress} max={1} aria-label={`Progress of ${job.id}`} />
        <span className="job-percent number">{wholePercent(job.progress)}</span>
      </span>
      <span className="job-message" title={job.message}>
        {job.message ?? "Waiting for its first event"}
      </span>
      <span className="job-time number">
        {left !== undefined && `${duration(left)} left`}
        {!running && job.status !== "queued" && timeOfDay(job.updatedAt)}
      </span>
    </li>
  );
});

function Jobs() {
  const jobs = useStore(useLiveData().jobs);
  const running = jobs.filter(({ status }) => status === "processing").length;
  const note = jobs.length > 0 ? `${running} rendering · ${jobs.length} in all` : undefined;
  return (
    <Panel title="Render jobs" note={note} className="jobs">
      {jobs.length === 0 ? (
        <Empty title="No render has been heard of">
          A worker lists its jobs in the state <code>jobs:index</code> and tells their progress on{" "}
          <code>job_progress:ID</code>.
        </Empty>
      ) : (
        // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reached by keyboard
        <ul className="job-list" tabIndex={0} aria-label="Render jobs">
          {jobs.map((job) => (
            <JobRow key={job.id} job={job} />
          ))}
        </ul>
      )}
    </Panel>
  );
}

const TILES = ["spend", "revenue", "roas", "conversions", "ctr"].map((field) =>
  METRICS.findIndex((metric) => metric.field === field),
);

/** What all campaigns come to, with how it went. */
function Totals() {
  const { jobs, campaigns } = useLiveData();
  const { totals, all } = useStore(campaigns);
  const list = useStore(jobs);
  const done = list.filter(({ status }) => status === "complete").length;
  const failed = list.filter(({ status }) => status === "failed").length;
  return (
    <dl className="totals panel" aria-label="Totals">
      <div className="total">
        <dt>Renders done</dt>
        <dd>
          <span className="figure number">{done}</span>
          <span className="total-note">{failed > 0 ? `${failed} failed` : `of ${list.length}`}</span>
        </dd>
      </div>
      {TILES.map((index) => {
        const metric = METRICS[index];
        const row = totals.rows[index] ?? [];
        const value = row.at(-1) ?? null;
        if (!metric) return null;
        return (
          <div className="total" key={metric.field}>
            <dt>{metric.label}</dt>
            <dd>
              <span className="figure number">{value === null || all.length === 0 ? "–" : metric.format(value)}</span>
              <LineChart
                bare
                label={`${metric.label} of all campaigns`}
                series={[{ label: metric.label, format: metric.format, area: true }]}
                times={totals.times}
                values={[row]}
              />
            </dd>
          </div>
        );
      })}
    </dl>
  );
}

const CampaignCard = memo(function CampaignCard({ campaign, chosen }: { campaign: Campaign; chosen: number }) {
  const metric = METRICS[chosen] ?? METRICS[0];
  if (!metric) return null;
  const { history } = campaign;
  return (
    <li className="campaign">
      <div className="campaign-body">
        <header className="campaign-head">
          <h3>{campaign.id}</h3>
          <span className="panel-note">{timeOfDay(campaign.updatedAt)}</span>
        </header>
        <dl className="figures">
          {METRICS.map(({ field, label, format }, index) => {
            const value = campaign.values[index] ?? null;
            return (
              <div key={field} data-chosen={index === chosen || undefined}>
                <dt>{label}</dt>
                <dd className="number">{value === null ? "–" : format(value)}</dd>
              </div>
            );
          })}
        </dl>
        <LineChart
          label={`${metric.label} of ${campaign.id}`}
          series={[{ label: metric.label, format: metric.format, area: true }]}
          times={history.times}
          values={[history.rows[chosen] ?? []]}
          format={metric.axis ?? metric.format}
          {...(metric.floor === undefined ? {} : { floor: metric.floor })}
        />
      </div>
    </li>
  );
});

function Campaigns() {
  const { all } = useStore(useLiveData().campaigns);
  const [chosen, setChosen] = useState(0);
  const choice = (
    <label className="line metric-choice">
      <span className="unseen">Chart</span>
      <select value={chosen} onChange={(event) => setChosen(Number(event.target.value))}>
        {METRICS.map(({ field, label }, index) => (
          <option key={field} value={index}>
            {label}
          </option>
        ))}
      </select>
    </label>
  );
  return (
    <Panel
      title="Campaigns"
      note={all.length > 0 ? `${all.length} live` : undefined}
      actions={all.length > 0 && choice}
      className="campaigns"
    >
      {all.length === 0 ? (
        <Empty title="No campaign has numbers yet">
          A worker lists its campaigns in the state <code>campaign_metrics:index</code> and sets{" "}
          <code>campaign_metrics:ID</code> to their newest numbers.
        </Empty>
      ) : (
        <ul className="campaign-list">
          {all.map((campaign) => (
            <CampaignCard key={campaign.id} campaign={campaign} chosen={chosen} />
          ))}
        </ul>
      )}
    </Panel>
  );
}

/** Channels beside those that workers list, kept in this browser. */
function Watched() {
  const { watched } = useLiveData();
  const channels = useStore(watched);

  function change(next: readonly string[]): void {
    keepWatched(next);
    watched.update(() => next);
  }

  function add(event: FormEvent<HTMLFormElement>): void {
    event.preventDefault();
    const form = event.currentTarget;
    const input = form.elements.namedItem("channel") as HTMLInputElement;
    const channel = input.value.trim();
    const good = isChannel(channel) && /^(job_progress|video_render|campaign_metrics):/.test(channel);
    input.setCustomValidity(good ? "" : "job_progress:ID, video_render:ID or campaign_metrics:ID");
    if (!form.reportValidity()) return;
    if (!channels.includes(channel)) change([...channels, channel].slice(-WATCHED_MAX));
    form.reset();
  }

  return (
    <Panel title="Watch more" note="kept in this browser" className="watched">
      <form className="line" onSubmit={add} noValidate>
        <label className="unseen" htmlFor="watch-channel">
          Channel to watch
        </label>
        <input
          id="watch-channel"
          name="channel"
          placeholder="job_progress:job_123"
          maxLength={255}
          autoComplete="off"
          autoCapitalize="off"
          spellCheck={false}
          onInput={(event) => event.currentTarget.setCustomValidity("")}
        />
        <button type="submit">Watch</button>
      </form>
      <ul className="chips" aria-label="Watched channels">
        {channels.map((channel) => (
          <li key={channel} className="chip">
            <span className="chip-name">{channel}</span>
            <button
              type="button"
              aria-label={`Stop watching ${channel}`}
              onClick={() => change(channels.filter((one) => one !== channel))}
            >
              ×
            </button>
          </li>
        ))}
      </ul>
    </Panel>
  );
}

/** Render jobs and campaigns, as they go. */
export function DashboardView() {
  return (
    <>
      <h1>Dashboard</h1>
      <Totals />
      <div className="dashboard">
        <Jobs />
        <Campaigns />
        <Watched />
      </div>
    </>
  );
}
