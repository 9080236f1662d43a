import { useChannel } from "@millrace/react";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";

interface JobProgress {
  jobId: string;
  /** From 0 to 1. */
  progress: number;
}

function Job({ id }: { id: string }) {
  // From the beginning: where the job stands is told by what came before this page.
  const { lastJsonMessage, status, error, gaps } = useChannel<JobProgress>(`job_progress:${id}`, { since: "0" });
  const progress = lastJsonMessage?.progress ?? 0;
  return (
    <section>
      <h1>Job {id}</h1>
      <progress value={progress} aria-label={`Job ${id}`} /> {Math.round(progress * 100)} %
      <p role="status">
        {error ? `${status}: ${error.message}` : status}
        {gaps > 0 && ` (${gaps} times something may have been missed)`}
      </p>
    </section>
  );
}

createRoot(document.getElementById("root") as HTMLElement).render(
  <StrictMode>
    <Job id="job_123" />
  </StrictMode>,
);
