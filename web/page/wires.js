// The two wires to the gateway, behind one interface. A Wire keeps trying until it is stopped
// or refused, and tells its listener:
//
//   state(name, detail)  connecting | live | waiting | offline | refused | idle
//   event({channel, id, type, text, kind})  kind: event | gap | error | notice

const FIRST_DELAY_MS = 1000;
const LONGEST_DELAY_MS = 30000;
const ANSWER_MS = 15000; // connected, but not a word
const SILENCE_MS = 45000; // three keep-alives missed
const PING_MS = 20000;

// Statuses after which another try would be answered the same.
const FINAL_STATUS = new Set([204, 400, 401, 403, 404, 405, 414, 431]);
const FINAL_CLOSE = new Set([1002, 1003, 1007, 1008, 1009]);

const NOTICES = new Set(["connected", "subscribed", "unsubscribed", "published", "replayed", "complete"]);

export function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

// kindOf says what a message is. Only names that the gateway reserves are its own words.
function kindOf(type) {
  if (type === "gap") return "gap";
  if (type === "server_error" || type === "error") return "error";
  return NOTICES.has(type) ? "notice" : "event";
}

class Wire {
  constructor(channels, token, listener) {
    this.channels = channels;
    this.token = token;
    this.listener = listener;
    this.stopping = new AbortController();
    this.delay = FIRST_DELAY_MS;
    this.tries = 0;
    addEventListener("online", () => this.wake?.(), { signal: this.stopping.signal });
    this.run();
  }

  stop() {
    this.stopping.abort();
    this.wake?.();
  }

  async run() {
    for (;;) {
      this.listener.state("connecting", this.tries ? "Connecting again" : "Connecting");
      const end = await this.attempt();
      if (this.stopping.signal.aborted) return;
      if (end.final) return this.listener.state("refused", end.detail);
      if (this.again) {
        this.again = false;
        this.tries = 0;
        continue;
      }
      // Half of the delay is drawn by lot, or everybody whom a restart cut would return at once.
      const longest = Math.max(this.delay * 2 ** Math.min(this.tries, 6), end.after ?? 0);
      const wait = Math.max(end.after ?? 0, Math.min(longest, LONGEST_DELAY_MS) * (0.5 + Math.random() / 2));
      this.tries++;
      const name = navigator.onLine ? "waiting" : "offline";
      this.listener.state(name, `${navigator.onLine ? end.detail : "Offline"}; again in ${Math.ceil(wait / 1000)} s`);
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, wait);
        this.wake = () => { clearTimeout(timer); resolve(); };
      });
      this.wake = undefined;
      this.again = false;
      if (this.stopping.signal.aborted) return;
    }
  }

  live() {
    this.tries = 0;
    this.listener.state("live", `Live over ${this.name}`);
  }
}

// SSE reads the stream with fetch, not with EventSource: that one hands over only the event
// names that were asked for beforehand, and keeps the reason of a refusal to itself.
export class SSE extends Wire {
  name = "SSE";

  setChannels(channels) {
    this.channels = channels;
    this.lastID = undefined; // it may name a channel that is gone
    this.again = true; // a stream's channels are fixed: open another
    this.reading?.abort();
    this.wake?.();
  }

  async attempt() {
    if (this.channels.length === 0) return this.idle();
    const url = new URL("/api/stream", location.href);
    for (const channel of this.channels) url.searchParams.append("channel", channel);
    const headers = { Accept: "text/event-stream" };
    if (this.lastID) headers["Last-Event-ID"] = this.lastID;
    if (this.token) headers.Authorization = `Bearer ${this.token}`;
    const reading = (this.reading = new AbortController());
    this.stopping.signal.addEventListener("abort", () => reading.abort(), { once: true });
    const watch = watchdog(ANSWER_MS, () => reading.abort());
    try {
      const response = await fetch(url, { headers, cache: "no-store", signal: reading.signal });
      if (response.status !== 200) return await refusal(response);
      await this.read(response.body, watch);
      return { detail: "The gateway ended the stream" };
    } catch {
      return { detail: watch.fired ? "No answer" : "Connection lost" };
    } finally {
      watch.stop();
    }
  }

  // idle waits until there is a channel: a stream of nothing is a bad request.
  idle() {
    this.listener.state("idle", "No channel subscribed");
    return new Promise((resolve) => {
      this.wake = () => resolve({ detail: "" });
    });
  }

  async read(body, watch) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    const parser = new EventParser((event) => this.take(event), (ms) => { this.delay = ms; });
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      watch.reset(SILENCE_MS);
      parser.feed(value);
    }
  }

  take({ id, type, data }) {
    if (id !== undefined) this.lastID = id;
    if (type === "connected") this.live();
    const value = parse(data);
    const channel = value?.channel ?? (id ? id.slice(0, id.indexOf("/")) : "");
    this.listener.event({ channel: String(channel), id, type, text: data, kind: kindOf(type) });
  }
}

// EventParser is the stream format of the HTML standard: lines end in LF, CR or CRLF, an empty
// line ends an event.
class EventParser {
  constructor(event, retry) {
    this.event = event;
    this.retry = retry;
    this.rest = "";
    this.clear();
  }

  clear() {
    this.type = "message";
    this.data = [];
    this.id = undefined;
  }

  feed(text) {
    // A CR at the very end may be half of a CRLF: keep it until what follows is known.
    const all = this.rest + text;
    const whole = all.endsWith("\r") ? all.slice(0, -1) : all;
    const lines = whole.split(/\r\n|\r|\n/);
    this.rest = lines.pop() + all.slice(whole.length);
    for (const line of lines) this.line(line);
  }

  line(line) {
    if (line === "") {
      if (this.data.length) this.event({ id: this.id, type: this.type, data: this.data.join("\n") });
      return this.clear();
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "data") this.data.push(value);
    else if (field === "event") this.type = value || "message";
    else if (field === "id" && !value.includes("\0")) this.id = value;
    else if (field === "retry" && /^\d+$/.test(value)) this.retry(Number(value));
  }
}

export class WebSocketWire extends Wire {
  name = "WebSocket";
  lastIDs = new Map();

  setChannels(channels) {
    const gone = this.channels.filter((channel) => !channels.includes(channel));
    const fresh = channels.filter((channel) => !this.channels.includes(channel));
    this.channels = channels;
    for (const channel of gone) this.lastIDs.delete(channel);
    if (gone.length) this.send({ type: "unsubscribe", channels: gone });
    if (fresh.length) this.send({ type: "subscribe", channels: fresh });
    this.wake?.();
  }

  send(command) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(command));
  }

  attempt() {
    return new Promise((resolve) => {
      const url = new URL("/ws?format=envelope", location.href);
      url.protocol = url.protocol.replace("http", "ws");
      const socket = (this.socket = new WebSocket(url, this.token ? ["millrace.v1", `bearer.${this.token}`] : []));
      const stop = () => socket.close();
      this.stopping.signal.addEventListener("abort", stop, { once: true });
      const watch = watchdog(ANSWER_MS, stop);
      const pings = setInterval(() => this.send({ type: "ping" }), PING_MS);
      socket.onmessage = ({ data }) => {
        watch.reset(SILENCE_MS);
        this.take(data);
      };
      socket.onclose = ({ code, reason }) => {
        watch.stop();
        clearInterval(pings);
        this.stopping.signal.removeEventListener("abort", stop);
        const why = watch.fired ? "No answer" : code === 1006 ? "Connection lost" : reason || `Closed with ${code}`;
        resolve({ final: FINAL_CLOSE.has(code), detail: why });
      };
    });
  }

  take(text) {
    const message = parse(text);
    if (message === undefined) return;
    const { type, channel = "", id } = message;
    if (type === "pong") return;
    if (type === "connected") {
      this.live();
      if (this.channels.length) {
        const since = this.lastIDs.size ? { since: Object.fromEntries(this.lastIDs) } : {};
        this.send({ type: "subscribe", channels: this.channels, ...since });
      }
    }
    if (type !== "event") {
      return this.listener.event({ channel: String(channel), id, type, text, kind: kindOf(type) });
    }
    if (id) this.lastIDs.set(channel, id);
    const inner = message.data?.type;
    this.listener.event({ channel, id, type: typeof inner === "string" ? inner : "message", text: JSON.stringify(message.data), kind: "event" });
  }
}

// watchdog calls back when it was not reset for so long.
function watchdog(ms, bark) {
  const watch = {
    fired: false,
    reset(next) {
      clearTimeout(watch.timer);
      watch.timer = setTimeout(() => { watch.fired = true; bark(); }, next);
    },
    stop() { clearTimeout(watch.timer); },
  };
  watch.reset(ms);
  return watch;
}

async function refusal(response) {
  const error = parse(await response.text())?.error;
  const after = Number(response.headers.get("Retry-After")) * 1000 || undefined;
  return { final: FINAL_STATUS.has(response.status), after, detail: `${response.status} ${error?.message ?? response.statusText}` };
}
