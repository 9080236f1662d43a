import type { Status, StreamError } from "@millrace/client";
import type { ReactNode } from "react";

/** What a colour says: nothing yet, at work, well, look here, broken. */
export type Tone = "idle" | "busy" | "good" | "warn" | "bad";

/** A dot and a word. The word says all that the colour does. */
export function StatusPill({ tone, children }: { tone: Tone; children: ReactNode }) {
  return (
    <span className="pill" data-tone={tone}>
      <span className="dot" aria-hidden="true" />
      {children}
    </span>
  );
}

const LINK: Record<Status, { tone: Tone; word: string }> = {
  idle: { tone: "idle", word: "Idle" },
  connecting: { tone: "busy", word: "Connecting" },
  open: { tone: "good", word: "Live" },
  waiting: { tone: "warn", word: "Reconnecting" },
  offline: { tone: "warn", word: "Offline" },
  closed: { tone: "idle", word: "Closed" },
  failed: { tone: "bad", word: "Refused" },
  complete: { tone: "idle", word: "Finished" },
};

/** How a connection stands, in one word of a fixed width. */
export function LinkPill({ status }: { status: Status }) {
  const { tone, word } = LINK[status];
  return <StatusPill tone={tone}>{word}</StatusPill>;
}

/** There is nothing yet: says what would be here, and how to get it there. */
export function Empty({ title, children }: { title: string; children?: ReactNode }) {
  return (
    <div className="state">
      <p className="state-title">{title}</p>
      {children && <div className="state-text">{children}</div>}
    </div>
  );
}

/** Something failed for good: says what, and offers to try again. */
export function Failure({ title, children, onRetry }: { title: string; children?: ReactNode; onRetry?: () => void }) {
  return (
    <div className="state" data-tone="bad" role="alert">
      <p className="state-title">{title}</p>
      {children && <div className="state-text">{children}</div>}
      {onRetry && (
        <button type="button" onClick={onRetry}>
          Try again
        </button>
      )}
    </div>
  );
}

interface LinkNoticeProps {
  status: Status;
  error: StreamError | null;
  onRetry: () => void;
}

/** A bar over a page whose connection is down; what is shown below it stays as it was. Nothing while all is well. */
export function LinkNotice({ status, error, onRetry }: LinkNoticeProps) {
  if (status !== "waiting" && status !== "offline" && status !== "failed") return null;
  const refusal = /unauthorized|token_expired/.test(error?.code ?? "")
    ? "The gateway asks for a token that is good."
    : `The gateway refused the connection${error ? `: ${error.message}` : ""}.`;
  const text = {
    waiting: "The connection is lost. Trying to get it back; what you see is from before.",
    offline: "You are offline. What you see is from before, and goes on when the network is back.",
    failed: refusal,
  }[status];
  return (
    <div className="notice" data-tone={status === "failed" ? "bad" : "warn"} role="status">
      <span>{text}</span>
      <button type="button" onClick={onRetry}>
        Try now
      </button>
    </div>
  );
}
