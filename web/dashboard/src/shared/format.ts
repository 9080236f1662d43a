// Numbers as people read them, in one locale, so that columns line up and tests hold anywhere.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const two = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat("en", {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  hourCycle: "h23",
});

/** 1234567 → 1,234,567, and from ten million on 12.3M. */
export function count(value: number): string {
  return Math.abs(value) >= 1e7 ? compact.format(value) : whole.format(value);
}

/** 1234 → 1.2K: for axes and narrow places. */
export function short(value: number): string {
  return compact.format(value);
}

/** Money without a currency's name, which no event tells: 1,234.50. */
export function money(value: number): string {
  return Math.abs(value) >= 1e6 ? compact.format(value) : two.format(value);
}

/** 0.0312 → 3.12 %. */
export function percent(value: number): string {
  return `${two.format(value * 100)} %`;
}

/** 0.75 → 75 %. */
export function wholePercent(value: number): string {
  return `${whole.format(value * 100)} %`;
}

export function ratio(value: number): string {
  return two.format(value);
}

/** Milliseconds, in the unit that fits: 0.42 ms, 12 ms, 1.25 s. */
export function milliseconds(value: number): string {
  if (value >= 1000) return `${two.format(value / 1000)} s`;
  return `${value >= 10 ? whole.format(value) : two.format(value)} ms`;
}

/** Seconds as a duration: 8 s, 1 min 5 s, 2 h 3 min. */
export function duration(seconds: number): string {
  const all = Math.max(0, Math.round(seconds));
  if (all < 60) return `${all} s`;
  if (all < 3600) return `${Math.floor(all / 60)} min ${all % 60} s`;
  return `${Math.floor(all / 3600)} h ${Math.floor((all % 3600) / 60)} min`;
}

/** Bytes in binary units: 512 B, 1.5 KiB, 20.1 MiB. */
export function bytes(value: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  let left = value;
  while (Math.abs(left) >= 1024 && unit < units.length - 1) {
    left /= 1024;
    unit++;
  }
  return `${unit === 0 ? whole.format(left) : compact.format(left)} ${units[unit]}`;
}

/** The time of day, to the second, of a time in milliseconds. */
export function timeOfDay(milliseconds: number): string {
  return clock.format(milliseconds);
}

const day = new Intl.DateTimeFormat("en", { month: "short", day: "numeric" });

/** The time of day, with the day where that is another than `now`'s. */
export function when(milliseconds: number, now: number): string {
  const sameDay = new Date(milliseconds).toDateString() === new Date(now).toDateString();
  return sameDay ? timeOfDay(milliseconds) : `${day.format(milliseconds)}, ${timeOfDay(milliseconds)}`;
}
