import { useState } from "react";
import { type Alert, acknowledge, SEVERITIES, type Severity, unacknowledged } from "../model/alerts.js";
import { useLiveData, useUser, writeAlerts } from "../model/live.js";
import { useStore } from "../model/store.js";
import { ratio, short, when } from "../shared/format.js";
import { Empty, StatusPill, type Tone } from "../shared/states.js";
import "./alerts.css";

const TONES: Record<Severity, Tone> = { critical: "bad", warning: "warn", info: "idle" };
const WORDS: Record<Severity, string> = { critical: "Critical", warning: "Warning", info: "Info" };

const measured = (value: number) => (Math.abs(value) >= 10_000 ? short(value) : ratio(value));

interface AlertRowProps {
  alert: Alert;
  onAcknowledge: (id: string, acknowledged: boolean) => void;
}

function AlertRow({ alert, onAcknowledge }: AlertRowProps) {
  const { severity, title, message, campaignId, metric, value, expected, acknowledged } = alert;
  return (
    <li className="alert" data-severity={severity} data-acknowledged={acknowledged || undefined}>
      <StatusPill tone={TONES[severity]}>{WORDS[severity]}</StatusPill>
      <div className="alert-text">
        <h2>{title}</h2>
        {message && <p>{message}</p>}
        <p className="alert-facts number">
          <time dateTime={new Date(alert.at).toISOString()}>{when(alert.at, Date.now())}</time>
          {campaignId && <span>{campaignId}</span>}
          {metric && value !== undefined && (
            <span>
              {metric} {measured(value)}
              {expected !== undefined && `, expected ${measured(expected)}`}
            </span>
          )}
        </p>
      </div>
      <button
        type="button"
        className={acknowledged ? "quiet" : ""}
        aria-label={`${acknowledged ? "Take back the acknowledgement of" : "Acknowledge"}: ${title}`}
        onClick={() => onAcknowledge(alert.id, !acknowledged)}
      >
        {acknowledged ? "Undo" : "Acknowledge"}
      </button>
    </li>
  );
}

type Filter = Severity | "all";

/** What the current user is to know. */
export function AlertsView() {
  const { alerts } = useLiveData();
  const all = useStore(alerts);
  const user = useUser();
  const [filter, setFilter] = useState<Filter>("all");
  const [withAcknowledged, setWithAcknowledged] = useState(true);
  const shown = all.filter(
    ({ severity, acknowledged }) => (filter === "all" || severity === filter) && (withAcknowledged || !acknowledged),
  );
  const open = unacknowledged(all);

  function set(ids: readonly string[], acknowledged: boolean): void {
    alerts.update((before) => {
      const next = acknowledge(before, new Set(ids), acknowledged);
      if (user !== undefined) writeAlerts(user, next);
      return next;
    });
  }

  return (
    <>
      <div className="page-head">
        <h1>Alerts</h1>
        <span className="panel-note number">{open === 0 ? "nothing to acknowledge" : `${open} to acknowledge`}</span>
      </div>
      <section className="panel alerts" aria-label="Alerts">
        <div className="alert-tools">
          <fieldset className="switch">
            <legend className="unseen">Severity</legend>
            {(["all", ...SEVERITIES] as const).map((one) => (
              <label key={one}>
                <input
                  type="radio"
                  name="severity"
                  value={one}
                  checked={filter === one}
                  onChange={() => setFilter(one)}
                />
                <span>{one === "all" ? "All" : WORDS[one]}</span>
              </label>
            ))}
          </fieldset>
          <label className="check">
            <input
              type="checkbox"
              checked={withAcknowledged}
              onChange={(event) => setWithAcknowledged(event.target.checked)}
            />
            Acknowledged too
          </label>
          <button
            type="button"
            disabled={!shown.some(({ acknowledged }) => !acknowledged)}
            onClick={() =>
              set(
                shown.map(({ id }) => id),
                true,
              )
            }
          >
            Acknowledge all
          </button>
        </div>
        {shown.length > 0 ? (
          <ol className="alert-list">
            {shown.map((alert) => (
              <AlertRow key={alert.id} alert={alert} onAcknowledge={(id, acknowledged) => set([id], acknowledged)} />
            ))}
          </ol>
        ) : all.length > 0 ? (
          <Empty title="No alert passes this filter" />
        ) : user === undefined ? (
          <Empty title="Alerts go to a user">
            <p>
              Say who you are, with the button that says Guest. What is published on <code>alerts:NAME</code> then comes
              here, and nowhere else.
            </p>
            <p>
              The example workers of <code>serve --demo</code> alert the user demo:{" "}
              <a href="?userId=demo#/alerts">look as demo</a>.
            </p>
          </Empty>
        ) : (
          <Empty title="No alerts">
            What is published on <code>alerts:{user}</code> comes here, on whichever view you are.
          </Empty>
        )}
      </section>
    </>
  );
}
