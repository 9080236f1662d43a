// The page: holds what is shown, and redraws four times a second, so that its cost does not
// grow with the rate of events.
import { formatOf, labelOf, Line, Rate } from "./charts.js";
import { parse, SSE, WebSocketWire } from "./wires.js";

const DEMO_CHANNEL = "system:millrace";
const DEMO_FIELDS = ["streams", "events", "heapBytes", "goroutines", "cpuPercent"];
const ROWS_MAX = 200;
const CHANNELS_MAX = 50;
const FIELDS_MAX = 40;
const DRAW_MS = 250;

const $ = (id) => document.getElementById(id);
const address = new URL(location.href);

const model = {
  wire: address.searchParams.get("wire") === "websocket" ? "websocket" : "sse",
  channels: address.searchParams.getAll("channel").slice(0, CHANNELS_MAX),
  token: "",
  paused: false,
  fresh: [], // events that are not drawn yet, oldest first
  missed: 0, // events that came during a pause
  received: 0,
  gaps: 0,
  liveSince: 0,
  lines: new Map(), // "channel field" -> Line
};
if (model.channels.length === 0) model.channels = [DEMO_CHANNEL];

const rate = new Rate($("race"));
let connection;

function connect() {
  connection?.stop();
  const listener = { state: showState, event: take };
  // An old connection's last words must not be taken for the new one's.
  const only = (name) => (...words) => listener === connect.current && listener[name](...words);
  connect.current = listener;
  const Kind = model.wire === "sse" ? SSE : WebSocketWire;
  connection = new Kind([...model.channels], model.token, { state: only("state"), event: only("event") });
  remember();
}

function showState(name, detail) {
  model.liveSince = name === "live" ? performance.now() : 0;
  $("state").dataset.state = name;
  $("state-text").textContent = detail;
  $("state").title = detail;
}

function take(event) {
  if (event.kind === "event") {
    model.received++;
    rate.add();
    measure(event);
  }
  if (event.kind === "gap") model.gaps++;
  if (model.paused) {
    model.missed++;
    return;
  }
  model.fresh.push({ ...event, time: new Date() });
  if (model.fresh.length > ROWS_MAX) model.fresh.shift();
}

// measure keeps the numbers of an event for the charts.
function measure({ channel, text }) {
  const value = parse(text);
  if (value === null || typeof value !== "object") return;
  for (const [field, number] of Object.entries(value)) {
    if (typeof number !== "number" || /^(timestamp|time|ts)$/i.test(field)) continue;
    line(channel, field)?.add(number);
  }
}

function line(channel, field) {
  const key = `${channel} ${field}`;
  let found = model.lines.get(key);
  if (!found && model.lines.size < FIELDS_MAX) {
    const label = channel === DEMO_CHANNEL ? labelOf(field) : `${labelOf(field)} · ${channel}`;
    found = new Line(label, `${field} of ${channel}`, formatOf(field));
    model.lines.set(key, found);
    $("fields").append(found.node);
  }
  return found;
}

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3 });

function row({ channel, id, type, text, kind, time }) {
  const item = document.createElement("li");
  item.className = kind;
  const details = item.appendChild(document.createElement("details"));
  const summary = details.appendChild(document.createElement("summary"));
  const cell = (tag, name, content) => {
    const node = summary.appendChild(document.createElement(tag));
    if (name) node.className = name;
    node.textContent = content;
  };
  cell("time", "", clock.format(time));
  cell("span", "channel", channel);
  cell("span", "type", type);
  cell("code", "", text.slice(0, 400));
  // The whole event is laid out only for whom opens it.
  details.addEventListener("toggle", () => {
    if (!details.open || details.lastChild !== summary) return;
    const pretty = details.appendChild(document.createElement("pre"));
    const value = parse(text);
    pretty.textContent = (id ? `id: ${id}\n` : "") + (value === undefined ? text : JSON.stringify(value, null, 2));
    pretty.scrollIntoView({ block: "nearest" });
  });
  return item;
}

function draw() {
  const fresh = model.fresh.splice(0);
  if (fresh.length) {
    const list = $("events");
    $("waiting").hidden = true;
    // The newest row is last, as in any log: rows that are being read stay where they are. Who
    // has scrolled up is left there; who is at the end is kept there.
    const following = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
    list.append(...fresh.map(row));
    while (list.childElementCount > ROWS_MAX) list.firstElementChild.remove();
    if (following) list.scrollTop = list.scrollHeight;
  }
  if (rate.roll() || fresh.length) rate.draw();
  $("rate").textContent = rate.perSecond().toLocaleString("en", { maximumFractionDigits: 1 });
  $("received").textContent = model.received.toLocaleString("en");
  $("gaps").textContent = model.gaps.toLocaleString("en");
  $("uptime").textContent = model.liveSince ? duration(performance.now() - model.liveSince) : "–";
  $("pause").textContent = model.paused ? `Resume (${model.missed > 999 ? "999+" : model.missed})` : "Pause";
  for (const chart of model.lines.values()) chart.draw();
}

function duration(ms) {
  const seconds = Math.floor(ms / 1000);
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  return `${Math.floor(seconds / 3600)} h`;
}

function drawChannels() {
  $("channel-list").replaceChildren(...model.channels.map((channel) => {
    const item = document.createElement("li");
    const name = item.appendChild(document.createElement("span"));
    name.textContent = channel;
    name.title = channel;
    const remove = item.appendChild(document.createElement("button"));
    remove.type = "button";
    remove.textContent = "×";
    remove.setAttribute("aria-label", `Unsubscribe from ${channel}`);
    remove.addEventListener("click", () => {
      setChannels(model.channels.filter((other) => other !== channel));
      $("channel").focus();
    });
    return item;
  }));
}

function setChannels(channels) {
  model.channels = channels;
  for (const [key, chart] of model.lines) {
    if (channels.includes(key.slice(0, key.indexOf(" ")))) continue;
    chart.node.remove();
    model.lines.delete(key);
  }
  drawChannels();
  remember();
  // A refused connection has given up: what is asked for now deserves a fresh try.
  if ($("state").dataset.state === "refused") connect();
  else connection.setChannels([...channels]);
}

// remember writes what is shown into the address, so that a reload or a shared link shows the
// same. The token stays out of it.
function remember() {
  const url = new URL(location.pathname, location.href);
  if (model.wire !== "sse") url.searchParams.set("wire", model.wire);
  if (model.channels.length !== 1 || model.channels[0] !== DEMO_CHANNEL) {
    for (const channel of model.channels) url.searchParams.append("channel", channel);
  }
  history.replaceState(null, "", url);
}

$("subscribe").addEventListener("submit", (event) => {
  event.preventDefault();
  const channel = $("channel").value.trim();
  if (channel && model.channels.length < CHANNELS_MAX && !model.channels.includes(channel)) setChannels([...model.channels, channel]);
  $("channel").value = "";
});

$("identify").addEventListener("submit", (event) => {
  event.preventDefault();
  model.token = $("token").value.trim();
  connect();
});

for (const input of document.querySelectorAll("input[name=wire]")) {
  input.checked = input.value === model.wire;
  input.addEventListener("change", () => {
    model.wire = input.value;
    connect();
  });
}

$("pause").addEventListener("click", () => {
  model.paused = !model.paused;
  model.missed = 0;
  $("pause").setAttribute("aria-pressed", String(model.paused));
  draw();
});

$("payload").addEventListener("input", () => {
  $("payload").setAttribute("aria-invalid", String(parse($("payload").value) === undefined));
});

$("publish").addEventListener("submit", async (event) => {
  event.preventDefault();
  const payload = parse($("payload").value);
  if (payload === undefined) return published("That is not JSON", true);
  const headers = { "Content-Type": "application/json" };
  if (model.token) headers.Authorization = `Bearer ${model.token}`;
  const body = JSON.stringify({ channel: $("publish-channel").value.trim(), event: payload });
  try {
    const response = await fetch("/api/publish", { method: "POST", headers, body });
    const answer = parse(await response.text());
    if (!response.ok) return published(answer?.error?.message ?? `Failed with ${response.status}`, true);
    published(answer?.distributed === false ? "Published here only: Redis is away" : "Published", false);
  } catch {
    published("The gateway does not answer", true);
  }
});

function published(text, failed) {
  $("published").textContent = text;
  $("published").title = text;
  $("published").toggleAttribute("data-failed", failed);
}

if (model.channels.includes(DEMO_CHANNEL)) for (const field of DEMO_FIELDS) line(DEMO_CHANNEL, field);
drawChannels();
connect();
draw();
setInterval(draw, DRAW_MS);
