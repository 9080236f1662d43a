import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { type Message, type SocketStream, type StreamError, type StreamOptions, webSocket } from "../src/index.js";
import { Browser, settle, type Tab } from "./browser.js";

let tab: Tab;
let closers: Array<() => void>;

beforeEach(() => {
  vi.useFakeTimers();
  tab = new Browser().tab();
  closers = [];
});

afterEach(() => {
  for (const close of closers) close();
  vi.useRealTimers();
});

/** Opens a stream for this page alone, and gives what it hears. */
function open(options: StreamOptions = {}) {
  const heard: Message[] = [];
  const errors: StreamError[] = [];
  const onMessage = (message: Message) => heard.push(message);
  const onError = (error: StreamError) => errors.push(error);
  const stream: SocketStream = webSocket("/ws", { share: "page", onMessage, onError, ...options }, tab);
  closers.push(stream.open());
  return { stream, heard, errors };
}

const statusOf = (stream: SocketStream) => {
  tab.draw();
  return stream.snapshot().status;
};

describe("opening", () => {
  it("asks for envelopes, and for its channels once greeted", async () => {
    const { stream } = open({ channels: ["a:1", "b:1"] });
    expect(tab.socket.url).toBe("ws://gateway.test/ws?format=envelope");
    expect(tab.socket.protocols).toEqual(["millrace.v1"]);
    expect(statusOf(stream)).toBe("connecting");
    tab.socket.connected();
    expect(tab.socket.sent).toEqual([{ type: "subscribe", channels: ["a:1", "b:1"] }]);
    expect(statusOf(stream)).toBe("open");
  });

  it("asks for a token before each connection", async () => {
    const tokens = ["first", "second"];
    open({ token: async () => tokens.shift() });
    await settle();
    expect(tab.socket.protocols).toEqual(["millrace.v1", "bearer.first"]);
    tab.socket.connected();
    tab.socket.drop();
    await vi.advanceTimersByTimeAsync(1_000);
    expect(tab.socket.protocols).toEqual(["millrace.v1", "bearer.second"]);
  });

  it("tries again when there is no token", async () => {
    let tries = 0;
    const { errors } = open({ token: () => (tries++ ? "good" : Promise.reject(new Error("logged out"))) });
    await settle();
    expect(errors).toMatchObject([{ code: "token", final: false }]);
    await vi.advanceTimersByTimeAsync(1_000);
    expect(tab.sockets.length).toBe(1);
  });

  it("does not wait for ever", async () => {
    const { errors } = open();
    await vi.advanceTimersByTimeAsync(15_000);
    expect(tab.socket.isClosed).toBe(true);
    expect(errors).toMatchObject([{ code: "no_answer" }]);
  });

  it("says so where there is no WebSocket", async () => {
    tab.WebSocket = undefined;
    const { stream, errors } = open();
    await settle();
    expect(errors).toMatchObject([{ code: "unsupported", final: true }]);
    expect(statusOf(stream)).toBe("failed");
  });
});

describe("coming back", () => {
  it("after growing pauses, short again only when a connection held", async () => {
    vi.spyOn(Math, "random").mockReturnValue(1);
    open();
    const attemptAfter = async (ms: number) => {
      const before = tab.sockets.length;
      await vi.advanceTimersByTimeAsync(ms - 1);
      expect(tab.sockets.length).toBe(before);
      await vi.advanceTimersByTimeAsync(1);
      expect(tab.sockets.length).toBe(before + 1);
    };
    tab.socket.drop();
    await attemptAfter(1_000);
    tab.socket.drop();
    await attemptAfter(2_000);
    tab.socket.connected(); // and lost at once
    tab.socket.drop();
    await attemptAfter(4_000);
    tab.socket.connected();
    await vi.advanceTimersByTimeAsync(10_000);
    tab.socket.drop();
    await attemptAfter(1_000);
  });

  it.each([
    ["reconnectAttempts", { reconnectAttempts: 5, reconnectInterval: 3_000 }],
    ["a function", { reconnectAttempts: 5, reconnectInterval: (attempt: number) => attempt * 500 }],
  ])("as often as it was told: %s", async (_, options) => {
    const { stream } = open(options);
    for (let n = 0; n < 10; n++) {
      if (!tab.socket.isClosed) tab.socket.drop();
      await vi.advanceTimersByTimeAsync(3_000);
    }
    expect(tab.sockets.length).toBe(6);
    expect(statusOf(stream)).toBe("failed");
    stream.reconnect();
    expect(tab.sockets.length).toBe(7);
  });

  it.each([
    ["a breach of the protocol", 1002, "", false],
    ["a restart", 1012, "restart", true],
    ["slowness", 1013, "slow", true],
    ["a loss", 1006, "", true],
    ["the end as asked", 1000, "", true],
    ["a denied connection", 1008, "Access denied", false],
    ["no token", 1008, "Unauthorized", false],
  ])("or not: %s", async (_, code, reason, comesBack) => {
    open();
    tab.socket.connected();
    tab.socket.drop(code, reason);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(tab.sockets.length > 1).toBe(comesBack);
  });

  it("with another token, once", async () => {
    const token = vi.fn(() => "old");
    const { stream, errors } = open({ token });
    await settle();
    tab.socket.connected();
    tab.socket.drop(1008, "Token expired");
    await vi.advanceTimersByTimeAsync(1_000);
    expect(token).toHaveBeenCalledTimes(2);
    tab.socket.drop(1008, "Unauthorized");
    expect(errors.at(-1)).toMatchObject({ code: "unauthorized", final: true });
    expect(statusOf(stream)).toBe("failed");
  });

  it("as shouldReconnect decides", async () => {
    const shouldReconnect = vi.fn(() => false);
    const { stream } = open({ shouldReconnect });
    tab.socket.drop();
    expect(shouldReconnect).toHaveBeenCalledWith(expect.objectContaining({ code: "lost", closeCode: 1006 }));
    expect(statusOf(stream)).toBe("failed");
  });

  it("never, if reconnect is false", () => {
    const { stream } = open({ reconnect: false });
    tab.socket.drop();
    expect(statusOf(stream)).toBe("failed");
  });

  it("at once when the network is back", async () => {
    const { stream } = open();
    tab.online = false;
    tab.socket.drop();
    expect(statusOf(stream)).toBe("offline");
    tab.tell("online");
    expect(tab.sockets.length).toBe(2);
  });

  it("when the other side falls silent, which it asks about", async () => {
    const { errors } = open();
    tab.socket.connected();
    await vi.advanceTimersByTimeAsync(20_000);
    expect(tab.socket.commands("ping").length).toBe(1);
    await vi.advanceTimersByTimeAsync(200_000);
    expect(tab.sockets.length).toBe(1);
    tab.socket.answersPings = false;
    await vi.advanceTimersByTimeAsync(61_000);
    expect(errors).toMatchObject([{ code: "lost", message: "the gateway fell silent" }]);
    expect(tab.sockets.length).toBe(2);
  });

  it("after a look when the tab is shown", () => {
    open();
    tab.tell("visible");
    expect(tab.socket.sent).toEqual([]); // it is not open yet
    tab.socket.connected();
    tab.tell("visible");
    expect(tab.socket.sent).toEqual([{ type: "ping" }]);
  });

  it("at once after a long sleep that nobody announced", async () => {
    open();
    tab.socket.connected();
    vi.setSystemTime(Date.now() + 60_000); // the timers stood still
    tab.tell("visible");
    expect(tab.socket.isClosed).toBe(true);
  });
});

describe("going on", () => {
  it("from the position on each channel", async () => {
    const { heard } = open({ channels: ["a:1", "b:1"] });
    tab.socket.connected();
    tab.socket.event("a:1", "a:1/7-0/10", 1);
    tab.socket.drop();
    await vi.advanceTimersByTimeAsync(1_000);
    tab.socket.connected();
    expect(tab.socket.sent).toEqual([{ type: "subscribe", channels: ["a:1", "b:1"], since: { "a:1": "a:1/7-0/10" } }]);
    // By horizon the gateway may replay what had arrived; b:1 was never confirmed, and misses nothing.
    tab.socket.event("a:1", "a:1/7-0/20", 1);
    tab.socket.event("a:1", "a:1/8-0/20", 2);
    tab.socket.say({ type: "replayed", channel: "a:1", count: 2 });
    expect(heard.map((message) => (message.kind === "event" ? message.data : message.kind))).toEqual([1, 2]);
  });

  it("on channels that came unasked", async () => {
    open();
    tab.socket.connected("alerts:456");
    tab.socket.event("alerts:456", "alerts:456/x.1", 1);
    tab.socket.drop();
    await vi.advanceTimersByTimeAsync(1_000);
    tab.socket.connected("alerts:456");
    expect(tab.socket.commands("subscribe")).toEqual([
      { type: "subscribe", channels: ["alerts:456"], since: { "alerts:456": "alerts:456/x.1" } },
    ]);
  });

  it("and says so where nobody can tell what was missed", async () => {
    const onGap = vi.fn();
    const { stream, heard } = open({ channels: ["quiet:1"], onGap });
    tab.socket.connected();
    tab.socket.say({ type: "subscribed", channel: "quiet:1" });
    tab.socket.drop();
    await vi.advanceTimersByTimeAsync(1_000);
    tab.socket.connected();
    const gap = { kind: "gap", channel: "quiet:1", after: undefined, reason: "unknown_position" };
    expect(heard).toEqual([gap]);
    expect(onGap).toHaveBeenCalledWith(gap);
    tab.draw();
    expect(stream.snapshot()).toMatchObject({ gaps: 1, lastMessage: gap, lastJsonMessage: null });
  });

  it("from the beginning, where it was asked to", () => {
    open({ channels: ["a:1"], since: "0" });
    tab.socket.connected();
    expect(tab.socket.sent).toEqual([{ type: "subscribe", channels: ["a:1"], since: { "a:1": "0" } }]);
  });

  it("until the stream is complete", async () => {
    const { stream, heard } = open();
    tab.socket.connected();
    tab.socket.say({ type: "complete", data: { score: 0.78 } });
    await vi.advanceTimersByTimeAsync(60_000);
    expect(heard).toEqual([{ kind: "complete", channel: undefined, data: { score: 0.78 } }]);
    expect([tab.sockets.length, statusOf(stream)]).toEqual([1, "complete"]);
  });
});

describe("channels", () => {
  it("are asked for once by all that mount in one go", async () => {
    open({ channels: ["a:1"] });
    tab.socket.connected();
    open({ channels: ["b:1"] });
    open({ channels: ["b:1", "c:1"] });
    await settle();
    expect(tab.sockets.length).toBe(1);
    expect(tab.socket.sent).toEqual([
      { type: "subscribe", channels: ["a:1"] },
      { type: "subscribe", channels: ["b:1", "c:1"] },
    ]);
  });

  it("are left when nobody listens any more, those that came unasked aside", async () => {
    open();
    const { stream } = open({ channels: ["a:1", "alerts:456"] });
    tab.socket.connected("alerts:456");
    stream.update({ share: "page", channels: ["b:1"] });
    await settle();
    expect(tab.socket.commands("unsubscribe")).toEqual([{ type: "unsubscribe", channels: ["a:1"] }]);
  });

  it("reach who listens to them, or to everything", () => {
    const a = open({ channels: ["a:1"] });
    const wild = open({ channels: ["b:*"] });
    const all = open();
    tab.socket.connected();
    tab.socket.event("a:1", "a:1/x.1", "a");
    tab.socket.event("b:7", "b:7/x.2", "b");
    expect([a, wild, all].map(({ heard }) => heard.length)).toEqual([1, 1, 2]);
  });

  it("of mode state have their value for those who come later", async () => {
    open({ channels: ["s:1"] });
    tab.socket.connected();
    tab.socket.event("s:1", undefined, { budget: 7 });
    const late = open({ channels: ["s:1"] });
    await settle();
    expect(late.heard).toMatchObject([{ kind: "event", channel: "s:1", data: { budget: 7 } }]);
  });

  it("that are denied don't take the others along", async () => {
    const denied = open({ channels: ["secret:1"] });
    const other = open({ channels: ["a:1"] });
    tab.socket.connected();
    tab.socket.say({ type: "error", code: "access_denied", message: "not yours", channel: "secret:1" });
    tab.socket.drop(1008, "Access denied");
    await vi.advanceTimersByTimeAsync(1_000);
    tab.socket.connected();
    expect(tab.socket.sent).toEqual([{ type: "subscribe", channels: ["a:1"] }]);
    expect(denied.errors[0]).toMatchObject({ code: "access_denied", channel: "secret:1" });
    expect(statusOf(other.stream)).toBe("open");
  });

  it("that could not be confirmed are asked for again", async () => {
    open({ channels: ["a:1"] });
    tab.socket.connected();
    tab.socket.say({ type: "error", code: "broker_unavailable", message: "later", channel: "a:1" });
    await vi.advanceTimersByTimeAsync(5_000);
    expect(tab.socket.commands("subscribe").length).toBe(2);
  });

  it("go in commands that the gateway takes", () => {
    open({ channels: Array.from({ length: 120 }, (_, n) => `a:${n}`) });
    tab.socket.connected();
    expect(tab.socket.sent.map((command) => (command["channels"] as string[]).length)).toEqual([50, 50, 20]);
  });
});

describe("commands", () => {
  it("wait for the connection, so many of them", () => {
    const { stream, errors } = open();
    for (let n = 0; n <= 100; n++) stream.sendJsonMessage({ type: "publish", channel: "a:1", event: n });
    expect(errors).toMatchObject([{ code: "queue_full" }]);
    tab.socket.connected();
    expect(tab.socket.commands("publish").length).toBe(100);
  });

  it("are answered by notices", () => {
    const onNotice = vi.fn();
    const { errors } = open({ onNotice });
    tab.socket.connected();
    tab.socket.say(
      { type: "published", ids: ["a:1/x.1"], ref: 7 },
      { type: "error", code: "bad_channel", message: "no" },
    );
    expect(onNotice.mock.calls.map(([notice]) => notice.type)).toEqual(["connected", "published", "error"]);
    expect(errors).toMatchObject([{ code: "bad_channel" }]);
  });
});

describe("large messages", () => {
  it("are refused beyond the bound", () => {
    const { errors, heard } = open({ maxMessageBytes: 1_000 });
    tab.socket.connected();
    tab.socket.event("a:1", "a:1/x.1", "x".repeat(2_000));
    expect(heard).toEqual([]);
    expect(errors).toMatchObject([{ code: "too_large", final: true }]);
  });

  it("keep their place among others while they are inflated", async () => {
    vi.useRealTimers();
    const { gzipSync } = await import("node:zlib");
    const { heard } = open();
    tab.socket.connected();
    const data = { type: "compressed", encoding: "gzip", data: gzipSync('"big"').toString("base64") };
    tab.socket.event("a:1", "a:1/x.1", "before");
    tab.socket.event("a:1", "a:1/x.2", data);
    tab.socket.event("a:1", "a:1/x.3", "after");
    await vi.waitFor(() => expect(heard.length).toBe(3));
    expect(heard.map((message) => message.kind === "event" && message.data)).toEqual(["before", "big", "after"]);
  });
});
