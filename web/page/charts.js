// Two small charts in SVG: bars for the rate, lines for measurements.

const SVG = "http://www.w3.org/2000/svg";

function path(name) {
  const node = document.createElementNS(SVG, "path");
  if (name) node.setAttribute("class", name);
  return node;
}

// Rate counts events in one-second bins and draws the last minute, newest at the right.
export class Rate {
  constructor(svg) {
    this.bars = svg.appendChild(path());
    this.bins = new Array(60).fill(0);
    this.second = Math.floor(performance.now() / 1000);
  }

  // roll begins new bins for the seconds that have passed.
  roll() {
    const now = Math.floor(performance.now() / 1000);
    const passed = Math.min(now - this.second, this.bins.length);
    this.second = now;
    for (let i = 0; i < passed; i++) {
      this.bins.shift();
      this.bins.push(0);
    }
    return passed > 0;
  }

  add() {
    this.roll();
    this.bins[this.bins.length - 1]++;
  }

  // perSecond is the mean of the last five whole seconds.
  perSecond() {
    return this.bins.slice(-6, -1).reduce((sum, count) => sum + count, 0) / 5;
  }

  draw() {
    const top = Math.max(4, ...this.bins) * 1.1;
    this.bars.setAttribute("d", this.bins.map((count, i) => {
      const height = (count / top) * 20;
      return height ? `M${i + 0.12} 20v${-height}h.76v${height}z` : "";
    }).join(""));
  }
}

const POINTS_MIN = 24;
const POINTS_MAX = 120;

// Line is one measurement: name, newest number, and how it went.
export class Line {
  constructor(label, title, format) {
    this.format = format;
    this.values = [];
    this.node = document.createElement("div");
    this.node.className = "card";
    this.node.title = title;
    this.node.append(...["small", "strong"].map((tag) => document.createElement(tag)));
    this.node.firstChild.textContent = label;
    this.number = this.node.lastChild;
    this.number.textContent = "–";
    const svg = (this.svg = this.node.appendChild(document.createElementNS(SVG, "svg")));
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("aria-hidden", "true");
    this.area = svg.appendChild(path("area"));
    this.edge = svg.appendChild(path("edge"));
  }

  add(value) {
    this.values.push(value);
    if (this.values.length > POINTS_MAX) this.values.shift();
    this.stale = true;
  }

  draw() {
    if (!this.stale) return;
    this.stale = false;
    this.number.textContent = this.format(this.values.at(-1));
    const low = Math.min(...this.values);
    const high = Math.max(...this.values);
    // A value that hardly moves is drawn as hardly moving, not blown up to the full height.
    const span = Math.max(high - low, Math.abs(high) * 0.05, 1e-9);
    const floor = (high + low) / 2 - span / 2;
    // The window grows with the history, so that the first minute is not squeezed into a corner.
    const width = Math.max(POINTS_MIN, this.values.length) - 1;
    const start = width + 1 - this.values.length;
    this.svg.setAttribute("viewBox", `0 0 ${width} 20`);
    const points = this.values.map((value, i) => `${start + i} ${(19 - ((value - floor) / span) * 18).toFixed(2)}`);
    this.edge.setAttribute("d", `M${points.join("L")}`);
    this.area.setAttribute("d", `M${start} 20L${points.join("L")}L${width} 20z`);
  }
}

const units = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 4 });

// formatOf chooses a format by the unit at the end of a field's name.
export function formatOf(field) {
  if (/bytes$/i.test(field)) return (value) => `${units.format(value / 1048576)} MiB`;
  if (/percent$/i.test(field)) return (value) => `${units.format(value)} %`;
  return (value) => (Number.isInteger(value) && Math.abs(value) < 1e6 ? value.toLocaleString("en") : compact.format(value));
}

// labelOf turns heapBytes into "heap".
export function labelOf(field) {
  return field.replace(/(Bytes|Percent)$/, "").replace(/([a-z])([A-Z])/g, "$1 $2").replaceAll("_", " ").toLowerCase();
}
