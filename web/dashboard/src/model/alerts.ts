import { fieldsOf, numberIn, textIn, timeIn } from "./fields.js";

export const SEVERITIES = ["critical", "warning", "info"] as const;
export type Severity = (typeof SEVERITIES)[number];

export interface Alert {
  readonly id: string;
  readonly severity: Severity;
  readonly title: string;
  readonly message: string | undefined;
  readonly campaignId: string | undefined;
  readonly metric: string | undefined;
  readonly value: number | undefined;
  readonly expected: number | undefined;
  /** In milliseconds. */
  readonly at: number;
  readonly acknowledged: boolean;
}

/** The newest first. */
export type Alerts = readonly Alert[];

export const ALERTS_MAX = 200;

/** Reads an alert; undefined where it is none. */
export function alertOf(data: unknown, fallbackId: string, now: number): Alert | undefined {
  const fields = fieldsOf(data);
  const title = textIn(fields, "title") ?? textIn(fields, "message");
  if (title === undefined) return undefined;
  const severity = SEVERITIES.find((one) => one === textIn(fields, "severity")?.toLowerCase()) ?? "info";
  const message = textIn(fields, "message");
  return {
    id: textIn(fields, "id") ?? fallbackId,
    severity,
    title,
    message: message === title ? undefined : message,
    campaignId: textIn(fields, "campaignId"),
    metric: textIn(fields, "metric"),
    value: numberIn(fields, "value"),
    expected: numberIn(fields, "expected"),
    at: timeIn(fields, now),
    acknowledged: false,
  };
}

/** Adds an alert; one that is known already is no news. The oldest is dropped. */
export function addAlert(alerts: Alerts, alert: Alert): Alerts {
  if (alerts.some(({ id }) => id === alert.id)) return alerts;
  const before = alerts.findIndex(({ at }) => at <= alert.at);
  return alerts.toSpliced(before < 0 ? alerts.length : before, 0, alert).slice(0, ALERTS_MAX);
}

/** Acknowledges some alerts, or takes that back. */
export function acknowledge(alerts: Alerts, ids: ReadonlySet<string>, acknowledged = true): Alerts {
  if (!alerts.some((alert) => ids.has(alert.id) && alert.acknowledged !== acknowledged)) return alerts;
  return alerts.map((alert) => (ids.has(alert.id) ? { ...alert, acknowledged } : alert));
}

export function unacknowledged(alerts: Alerts): number {
  return alerts.reduce((count, { acknowledged }) => count + (acknowledged ? 0 : 1), 0);
}

/** What is heard of an alert. */
export function spoken({ severity, title, message }: Alert): string {
  return [`${severity[0]?.toUpperCase()}${severity.slice(1)}: ${title}`, message].filter(Boolean).join(". ");
}

/** Reads what {@link keepAlerts} wrote; what is not an alert is left out. */
export function keptAlerts(text: string | null): Alerts {
  let kept: unknown;
  try {
    kept = JSON.parse(text ?? "[]");
  } catch {
    return [];
  }
  if (!Array.isArray(kept)) return [];
  return kept.reduce<Alerts>((alerts, one) => {
    const fields = fieldsOf(one);
    const id = textIn(fields, "id");
    const alert = id === undefined ? undefined : alertOf(fields, id, 0);
    if (!alert) return alerts;
    const at = numberIn(fields, "at") ?? 0;
    return addAlert(alerts, { ...alert, at, acknowledged: fields["acknowledged"] === true });
  }, []);
}

export function keepAlerts(alerts: Alerts): string {
  return JSON.stringify(alerts);
}

/** What two tabs know together. Theirs was written last, so what it says about acknowledging holds. */
export function mergeAlerts(ours: Alerts, theirs: Alerts): Alerts {
  const told = new Map(theirs.map(({ id, acknowledged }) => [id, acknowledged]));
  return theirs.reduce(addAlert, ours).map((alert) => {
    const acknowledged = told.get(alert.id) ?? alert.acknowledged;
    return acknowledged === alert.acknowledged ? alert : { ...alert, acknowledged };
  });
}
