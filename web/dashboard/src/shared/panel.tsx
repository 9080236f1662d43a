import { type ReactNode, useId } from "react";

interface PanelProps {
  title: string;
  /** Beside the title, in the faint colour: a count, a unit, a channel. */
  note?: ReactNode;
  /** At the end of the title's line: buttons, a switch. */
  actions?: ReactNode;
  className?: string;
  children: ReactNode;
}

/** A titled part of a page, and a landmark for who listens to it. */
export function Panel({ title, note, actions, className = "", children }: PanelProps) {
  const id = useId();
  return (
    <section className={`panel ${className}`} aria-labelledby={id}>
      <header className="panel-head">
        <h2 id={id}>{title}</h2>
        {note !== undefined && <span className="panel-note">{note}</span>}
        {actions && <span className="panel-actions">{actions}</span>}
      </header>
      {children}
    </section>
  );
}
