import { fieldsOf, numberIn, splitChannel, textIn, timeIn } from "./fields.js";

export type JobStatus = "queued" | "processing" | "complete" | "failed";

/** A render job as its events tell it. */
export interface Job {
  readonly id: string;
  readonly status: JobStatus;
  /** From 0 to 1. */
  readonly progress: number;
  readonly message: string | undefined;
  /** Frames encoded a second, while it runs. */
  readonly fps: number | undefined;
  readonly frame: number | undefined;
  readonly frames: number | undefined;
  /** Times as fast as the video plays. */
  readonly speed: number | undefined;
  /** `1280 × 720 · ffmpeg`, once the render tells it. */
  readonly format: string | undefined;
  /** When this run was first heard of, and last, in milliseconds. */
  readonly startedAt: number;
  readonly updatedAt: number;
}

/** The newest job first. */
export type Jobs = readonly Job[];

const JOBS_MAX = 40;
const STATUSES: Record<string, JobStatus> = {
  queued: "queued",
  pending: "queued",
  processing: "processing",
  started: "processing",
  running: "processing",
  rendering: "processing",
  complete: "complete",
  completed: "complete",
  finished: "complete",
  done: "complete",
  failed: "failed",
  error: "failed",
};

/** The channels that tell of a job. */
export function jobChannels(id: string): string[] {
  return [`job_progress:${id}`, `video_render:${id}`];
}

export function isJobChannel(channel: string): boolean {
  return /^(job_progress|video_render):/.test(channel);
}

function fresh(id: string, at: number): Job {
  return {
    id,
    status: "queued",
    progress: 0,
    message: undefined,
    fps: undefined,
    frame: undefined,
    frames: undefined,
    speed: undefined,
    format: undefined,
    startedAt: at,
    updatedAt: at,
  };
}

/** Whether a job that had ended begins anew: ids are used again. */
function isAnother(job: Job, status: JobStatus, progress: number): boolean {
  const ended = job.status === "complete" || job.status === "failed";
  return (ended && (status === "queued" || status === "processing")) || progress < job.progress - 0.5;
}

/** Takes an event of `job_progress:ID` or `video_render:ID`; what it says nothing about stays as it was. */
export function addJobEvent(jobs: Jobs, channel: string, data: unknown, now: number): Jobs {
  const [type, id] = splitChannel(channel);
  const fields = fieldsOf(data);
  const at = timeIn(fields, now);
  const told = STATUSES[(textIn(fields, "status") ?? textIn(fields, "stage") ?? "").toLowerCase()];
  const index = jobs.findIndex((job) => job.id === id);
  let job = jobs[index] ?? fresh(id, at);
  const progress = Math.min(1, Math.max(0, numberIn(fields, "progress") ?? job.progress));
  const status = told ?? (progress >= 1 ? "complete" : progress > 0 ? "processing" : job.status);
  const restarted = index >= 0 && type === "job_progress" && isAnother(job, status, progress);
  if (restarted) job = { ...fresh(id, at), format: job.format };
  // The two channels race: the stages of a render only add to what the progress says, except its end.
  const ends = status === "complete" || status === "failed";
  const mayTell = type === "job_progress" || job.status === "queued" || ends;
  const next: Job = {
    id,
    status: mayTell ? status : job.status,
    progress: mayTell && status === "complete" ? 1 : progress,
    message: type === "job_progress" || mayTell ? (textIn(fields, "message") ?? job.message) : job.message,
    fps: ends ? undefined : (numberIn(fields, "fps") ?? job.fps),
    frame: numberIn(fields, "frame") ?? job.frame,
    frames: numberIn(fields, "frames") ?? job.frames,
    speed: numberIn(fields, "speed") ?? job.speed,
    format: formatOf(fields) ?? job.format,
    startedAt: job.startedAt,
    updatedAt: Math.max(job.updatedAt, at),
  };
  if (index >= 0 && !restarted) return jobs.with(index, next);
  return placed(
    jobs.filter((other) => other.id !== id),
    next,
  );
}

/** Forgets the jobs of which none of these channels tells any more: nobody would say how they end. */
export function keepJobs(jobs: Jobs, channels: ReadonlySet<string>): Jobs {
  const kept = jobs.filter(({ id }) => jobChannels(id).some((channel) => channels.has(channel)));
  return kept.length === jobs.length ? jobs : kept;
}

/** The job that began last is first. It keeps its place from then on: rows that jump can't be read. */
function placed(jobs: Jobs, job: Job): Jobs {
  const before = jobs.findIndex(({ startedAt }) => startedAt < job.startedAt);
  return jobs.toSpliced(before < 0 ? jobs.length : before, 0, job).slice(0, JOBS_MAX);
}

function formatOf(fields: ReturnType<typeof fieldsOf>): string | undefined {
  const width = numberIn(fields, "width");
  const height = numberIn(fields, "height");
  if (width === undefined || height === undefined) return undefined;
  return [`${width} × ${height}`, textIn(fields, "renderer")].filter(Boolean).join(" · ");
}

/** How long it will still take in seconds, where that can be told. */
export function secondsLeft(job: Job): number | undefined {
  if (job.status !== "processing") return undefined;
  const { frame, frames, fps, progress } = job;
  if (frame !== undefined && frames !== undefined && fps) return Math.max(0, (frames - frame) / fps);
  const elapsed = (job.updatedAt - job.startedAt) / 1000;
  return progress > 0.02 && elapsed > 1 ? (elapsed * (1 - progress)) / progress : undefined;
}
