import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { type Message, type StreamOptions, webSocket } from "../src/index.js";
import { Browser, settle, type Tab } from "./browser.js";

let browser: Browser;
let closers: Array<() => void>;

beforeEach(() => {
  vi.useFakeTimers();
  browser = new Browser();
  closers = [];
});

afterEach(() => {
  for (const close of closers) close();
  vi.useRealTimers();
});

/** A tab with one listener. */
async function openTab(options: StreamOptions & { hidden?: boolean } = {}, tab: Tab = browser.tab()) {
  const { hidden = false, ...streamOptions } = options;
  tab.hidden = hidden;
  const heard: Message[] = [];
  const stream = webSocket(
    "/ws",
    { channels: ["a:1"], onMessage: (message) => heard.push(message), ...streamOptions },
    tab,
  );
  const close = stream.open();
  closers.push(close);
  await settle();
  const told = () => heard.map((message) => (message.kind === "event" ? message.data : message.kind));
  const status = () => {
    tab.draw();
    return stream.snapshot().status;
  };
  return { tab, stream, heard, told, close, status };
}

type Opened = Awaited<ReturnType<typeof openTab>>;

/** The one tab that has a socket. */
function leader(...tabs: Opened[]): Opened {
  const leading = tabs.filter(({ tab }) => tab.openSockets > 0);
  expect(leading.length).toBe(1);
  return leading[0] as Opened;
}

async function greet({ tab }: Opened): Promise<void> {
  tab.socket.connected();
  tab.socket.say({ type: "subscribed", channel: "a:1" });
  await vi.advanceTimersByTimeAsync(20);
}

async function publish({ tab }: Opened, n: number): Promise<void> {
  tab.socket.event("a:1", `a:1/${n}-0/0`, n);
  await vi.advanceTimersByTimeAsync(20);
}

describe("tabs", () => {
  it("share one connection", async () => {
    const tabs = [await openTab(), await openTab(), await openTab()];
    const lead = leader(...tabs);
    await greet(lead);
    await publish(lead, 1);
    expect(tabs.map(({ told }) => told())).toEqual([[1], [1], [1]]);
    expect(tabs.map(({ status }) => status())).toEqual(["open", "open", "open"]);
  });

  it.each([
    ["other users", { user: "1" }, { user: "2" }],
    ["no sharing", { share: false }, { share: false }],
    ["sharing in the page only", { share: "page" }, { share: "page" }],
    ["tokens of nobody knows whom", { token: () => "a" }, { token: () => "b" }],
  ] as Array<[string, StreamOptions, StreamOptions]>)("do not share: %s", async (_, first, second) => {
    const tabs = [await openTab(first), await openTab(second)];
    expect(tabs.map(({ tab }) => tab.openSockets)).toEqual([1, 1]);
  });

  it("share where the user of the tokens is the same", async () => {
    const options = () => ({ user: "1", token: () => "a" });
    const tabs = [await openTab(options()), await openTab(options())];
    leader(...tabs);
  });

  it.each(["locks", "BroadcastChannel"] as const)("connect each for itself without %s", async (missing) => {
    const tabs = [
      await openTab({}, browser.tab({ [missing]: undefined })),
      await openTab({}, browser.tab({ [missing]: undefined })),
    ];
    expect(tabs.map(({ tab }) => tab.openSockets)).toEqual([1, 1]);
  });

  it("connect each for itself where locks are forbidden", async () => {
    const request = () => Promise.reject(new DOMException("an opaque origin", "SecurityError"));
    const locks = { request } as unknown as LockManager;
    const tabs = [await openTab({}, browser.tab({ locks })), await openTab({}, browser.tab({ locks }))];
    expect(tabs.map(({ tab }) => tab.openSockets)).toEqual([1, 1]);
  });

  it("say what they want once for all that mount in one go", async () => {
    await openTab();
    const b = await openTab();
    const posts = b.tab.posts;
    for (const channel of ["b:1", "c:1", "d:1"]) closers.push(webSocket("/ws", { channels: [channel] }, b.tab).open());
    await settle();
    expect(b.tab.posts).toBe(posts + 1);
  });

  it("come back to a channel live, not from where they left it", async () => {
    const a = await openTab();
    await greet(a);
    const b = await openTab({ channels: ["b:1"] });
    a.tab.socket.event("b:1", "b:1/5-0/0", 5);
    await vi.advanceTimersByTimeAsync(20);
    b.stream.update({ channels: [] });
    await settle();
    b.stream.update({ channels: ["b:1"] });
    await settle();
    expect(a.tab.socket.sent.at(-1)).toEqual({ type: "subscribe", channels: ["b:1"] });
  });

  it("listen to their own channels", async () => {
    const a = await openTab();
    await greet(a);
    const b = await openTab({ channels: ["b:1"] });
    expect(a.tab.socket.sent.at(-1)).toEqual({ type: "subscribe", channels: ["b:1"] });
    a.tab.socket.event("b:1", "b:1/x.1", "for b");
    await vi.advanceTimersByTimeAsync(20);
    expect([a.told(), b.told()]).toEqual([[], ["for b"]]);
    b.close();
    await vi.advanceTimersByTimeAsync(1_000);
    expect(a.tab.socket.sent.at(-1)).toEqual({ type: "unsubscribe", channels: ["b:1"] });
  });

  it("hand commands on", async () => {
    const a = await openTab();
    await greet(a);
    const b = await openTab();
    b.stream.sendJsonMessage({ type: "publish", channel: "a:1", event: 1 });
    await settle();
    expect(a.tab.socket.commands("publish").length).toBe(1);
    b.stream.reconnect();
    await settle();
    expect(a.tab.sockets.length).toBe(2);
  });

  it("get the value of a state when they come", async () => {
    const a = await openTab({ channels: ["s:1"] });
    a.tab.socket.connected();
    a.tab.socket.event("s:1", undefined, "value");
    const b = await openTab({ channels: ["s:1"] });
    expect(b.told()).toEqual(["value"]);
    const c = await openTab({ channels: [] });
    c.stream.update({ channels: ["s:1"], onMessage: (message) => c.heard.push(message) });
    await vi.advanceTimersByTimeAsync(20);
    expect(c.told()).toEqual(["value"]);
  });

  it("hear thousands of events in order, in a few posts", async () => {
    const a = await openTab();
    const b = await openTab();
    await greet(a);
    for (let n = 1; n <= 10_000; n++) a.tab.socket.event("a:1", `a:1/${n}-0/0`, n);
    await vi.advanceTimersByTimeAsync(20);
    expect(b.told()).toEqual(Array.from({ length: 10_000 }, (_, n) => n + 1));
  });

  it("are counted no more when they do not answer", async () => {
    const a = await openTab();
    await greet(a);
    const b = await openTab({ channels: ["b:1"] });
    browser.crash(b.tab);
    await vi.advanceTimersByTimeAsync(240_000);
    expect(a.tab.socket.commands("unsubscribe")).toEqual([{ type: "unsubscribe", channels: ["b:1"] }]);
  });
});

describe("leadership", () => {
  it("passes on when the leader's tab is closed, and nothing is told twice", async () => {
    const a = await openTab();
    const b = await openTab();
    await greet(a);
    await publish(a, 1);
    a.tab.tell("sleep");
    await settle();
    expect(leader(a, b)).toBe(b);
    b.tab.socket.connected();
    expect(b.tab.socket.sent).toEqual([{ type: "subscribe", channels: ["a:1"], since: { "a:1": "a:1/1-0/0" } }]);
    await publish(b, 1); // replayed
    await publish(b, 2);
    expect(b.told()).toEqual([1, 2]);
  });

  it("passes on when the leader's tab crashes", async () => {
    const a = await openTab();
    const b = await openTab();
    await greet(a);
    browser.crash(a.tab);
    await settle();
    expect(b.tab.openSockets).toBe(1);
  });

  it("is taken from a leader that freezes in silence, after 15 s", async () => {
    const a = await openTab();
    const b = await openTab();
    const c = await openTab();
    await greet(a);
    await publish(a, 1);
    a.tab.isFrozen = true;
    await vi.advanceTimersByTimeAsync(14_000);
    expect(b.tab.openSockets).toBe(0);
    await vi.advanceTimersByTimeAsync(6_000);
    expect(b.tab.openSockets).toBe(1);
    await greet(b);
    await publish(b, 2);
    // It thaws. What its socket had for it comes before it sees that it lost the lock, and is its own.
    a.tab.isFrozen = false;
    a.tab.socket.event("a:1", "a:1/1-5/0", "late");
    await vi.advanceTimersByTimeAsync(20);
    a.tab.thaw();
    await settle();
    expect(leader(a, b, c)).toBe(b);
    await publish(b, 3);
    expect([b.told(), c.told()]).toEqual([
      [1, 2, 3],
      [1, 2, 3],
    ]);
    expect(a.told()).toEqual([1, "late", "gap", 3]);
  });

  it("is not taken back by a tab that thaws, which says what it missed", async () => {
    const a = await openTab();
    const b = await openTab();
    await greet(a);
    await publish(a, 1);
    a.tab.isFrozen = true;
    await vi.advanceTimersByTimeAsync(20_000);
    await greet(b);
    await publish(b, 2);
    a.tab.thaw();
    await settle();
    await publish(b, 3);
    expect(a.told()).toEqual([1, "gap", 3]);
  });

  it("stays with a leader that answers, however quiet the channels are", async () => {
    const a = await openTab();
    const b = await openTab();
    await greet(a);
    await vi.advanceTimersByTimeAsync(200_000);
    expect(leader(a, b)).toBe(a);
  });

  it("goes to a visible tab when the leader has been hidden for a while", async () => {
    const a = await openTab();
    const hidden = await openTab({ hidden: true });
    const visible = await openTab();
    await greet(a);
    a.tab.tell("hidden");
    await vi.advanceTimersByTimeAsync(25_000);
    expect(leader(a, hidden, visible)).toBe(a);
    await vi.advanceTimersByTimeAsync(10_000);
    expect(leader(a, hidden, visible)).toBe(visible);
  });

  it("stays where it is while all tabs are hidden", async () => {
    const a = await openTab({ hidden: true });
    const b = await openTab({ hidden: true });
    await greet(a);
    await vi.advanceTimersByTimeAsync(60_000);
    expect([a.tab.sockets.length, b.tab.sockets.length]).toEqual([1, 0]);
  });
});

describe("a tab that slept", () => {
  it("hears of a gap if it missed something", async () => {
    const a = await openTab();
    const b = await openTab();
    await greet(a);
    await publish(a, 1);
    b.tab.tell("sleep");
    await publish(a, 2);
    b.tab.tell("wake");
    await vi.advanceTimersByTimeAsync(20);
    b.tab.tell("visible"); // it asks the leader, and is welcomed again
    await settle();
    await publish(a, 3);
    expect(b.told()).toEqual([1, "gap", 3]);
    expect(b.status()).toBe("open");
  });

  it("hears of none if it missed nothing", async () => {
    const a = await openTab();
    const b = await openTab();
    await greet(a);
    await publish(a, 1);
    b.tab.tell("sleep");
    b.tab.tell("wake");
    await vi.advanceTimersByTimeAsync(20);
    await publish(a, 2);
    expect(b.told()).toEqual([1, 2]);
  });

  it("has its own channels replayed from where it was", async () => {
    const a = await openTab();
    await greet(a);
    const b = await openTab({ channels: ["b:1"] });
    a.tab.socket.say({ type: "subscribed", channel: "b:1" });
    a.tab.socket.event("b:1", "b:1/5-0/0", 5);
    await vi.advanceTimersByTimeAsync(20);
    b.tab.tell("sleep");
    await settle();
    b.tab.tell("wake");
    await settle();
    expect(a.tab.socket.sent.at(-1)).toEqual({ type: "subscribe", channels: ["b:1"], since: { "b:1": "b:1/5-0/0" } });
    expect(b.told()).toEqual([5]);
  });

  it("lets go of its socket, and goes on from where it was", async () => {
    const a = await openTab();
    await greet(a);
    await publish(a, 1);
    a.tab.tell("sleep");
    await settle();
    expect([a.tab.openSockets, a.status()]).toEqual([0, "waiting"]);
    a.tab.tell("wake");
    await settle();
    a.tab.socket.connected();
    expect(a.tab.socket.sent).toEqual([{ type: "subscribe", channels: ["a:1"], since: { "a:1": "a:1/1-0/0" } }]);
  });
});
