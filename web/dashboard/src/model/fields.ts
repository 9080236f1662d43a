// Payloads are strangers' text: every field is looked at before it is shown.

export type Fields = Readonly<Record<string, unknown>>;

/** The fields of a payload; none where it is not an object. */
export function fieldsOf(data: unknown): Fields {
  return data !== null && typeof data === "object" && !Array.isArray(data) ? (data as Fields) : {};
}

/** A number, also one that a hash in Redis holds as text. */
export function numberIn(fields: Fields, name: string): number | undefined {
  const value = fields[name];
  const number = typeof value === "string" && value.trim() !== "" ? Number(value) : value;
  return typeof number === "number" && Number.isFinite(number) ? number : undefined;
}

const TEXT_MAX = 500;

/** A text, cut where it is longer than a page has room for. */
export function textIn(fields: Fields, name: string): string | undefined {
  const value = fields[name];
  if (typeof value === "number") return String(value);
  if (typeof value !== "string" || value === "") return undefined;
  return value.length > TEXT_MAX ? `${value.slice(0, TEXT_MAX)}…` : value;
}

/** When it happened, in milliseconds: the payload's own time where it tells one, else now. */
export function timeIn(fields: Fields, now: number): number {
  const { timestamp } = fields;
  const time = typeof timestamp === "string" ? Date.parse(timestamp) : timestamp;
  return typeof time === "number" && Number.isFinite(time) && time > 0 ? time : now;
}

const PART = /^[A-Za-z0-9_.@=|+-]{1,128}$/;

/** The ids that an index lists: those that can stand in a channel's name, each once, up to `sizeMax`. */
export function idsOf(data: unknown, sizeMax: number): string[] {
  const { ids } = fieldsOf(data);
  if (!Array.isArray(ids)) return [];
  const good = ids.filter((id): id is string => typeof id === "string" && PART.test(id) && id !== "index");
  return [...new Set(good)].slice(0, sizeMax);
}

/** Whether text can be the whole name of a channel: `type:id` or `type:id:user`. */
export function isChannel(text: string): boolean {
  const parts = text.split(":");
  return (
    text.length <= 255 &&
    (parts.length === 2 || parts.length === 3) &&
    parts.every((part) => PART.test(part)) &&
    !text.startsWith("__")
  );
}

/** `job_progress:job_123` → [`job_progress`, `job_123`]. */
export function splitChannel(channel: string): [type: string, id: string] {
  const at = channel.indexOf(":");
  return [channel.slice(0, at), channel.slice(at + 1)];
}
