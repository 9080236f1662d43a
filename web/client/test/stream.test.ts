import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { type StreamOptions, sse, webSocket } from "../src/index.js";
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

function open(options: StreamOptions = {}) {
  const stream = webSocket<{ n: number }>("/ws", { share: "page", ...options } as StreamOptions<{ n: number }>, tab);
  const observer = vi.fn();
  const close = stream.listen(observer);
  closers.push(close);
  return { stream, observer, close };
}

const publish = (n: number) => tab.socket.event("a:1", `a:1/x.${n}`, { n });

describe("a stream", () => {
  it("does nothing until it is opened", () => {
    webSocket("/ws", {}, tab);
    sse("/api/stream", {}, tab);
    expect([tab.sockets.length, tab.requests.length, tab.listenerCount]).toEqual([0, 0, 0]);
  });

  it("to nowhere stays idle", () => {
    const stream = webSocket(null, {}, tab);
    stream.open();
    tab.draw();
    expect(stream.snapshot()).toMatchObject({ status: "idle", readyState: -1 });
  });

  it("shows the newest state once a frame, and every event to a callback", () => {
    const onMessage = vi.fn();
    const { stream, observer } = open({ onMessage });
    tab.socket.connected();
    tab.draw();
    const shown = observer.mock.calls.length;
    const before = stream.snapshot();
    for (let n = 1; n <= 10_000; n++) publish(n);
    expect(onMessage).toHaveBeenCalledTimes(10_000);
    expect(stream.snapshot()).toBe(before);
    tab.draw();
    expect(observer).toHaveBeenCalledTimes(shown + 1);
    expect(stream.snapshot()).toMatchObject({
      readyState: 1,
      lastJsonMessage: { n: 10_000 },
      lastEventId: "a:1/x.10000",
      error: null,
    });
    tab.draw();
    expect(observer).toHaveBeenCalledTimes(shown + 1);
  });

  it("keeps nothing but the newest while no frame is drawn", () => {
    const { stream } = open();
    tab.socket.connected();
    for (let n = 1; n <= 100; n++) publish(n);
    tab.draw();
    expect(stream.snapshot().lastJsonMessage).toEqual({ n: 100 });
  });

  it("filters what it shows, not what it tells", () => {
    const onMessage = vi.fn();
    const { stream } = open({
      onMessage,
      filter: (message) => message.kind === "event" && (message.data as { n: number }).n % 2 === 0,
    });
    tab.socket.connected();
    publish(2);
    publish(3);
    tab.draw();
    expect(stream.snapshot().lastJsonMessage).toEqual({ n: 2 });
    expect(onMessage).toHaveBeenCalledTimes(2);
  });

  it("survives a callback that throws", () => {
    const reported = vi.fn();
    vi.stubGlobal("reportError", reported);
    open({
      onMessage: () => {
        throw new Error("a mistake of the page");
      },
    });
    const onMessage = vi.fn();
    open({ onMessage });
    tab.socket.connected();
    publish(1);
    expect(onMessage).toHaveBeenCalledTimes(1);
    expect(reported).toHaveBeenCalledTimes(1);
    vi.unstubAllGlobals();
  });

  it("tells when it opens and closes", () => {
    const [onOpen, onClose] = [vi.fn(), vi.fn()];
    const { stream } = open({ onOpen, onClose });
    tab.socket.connected();
    tab.socket.drop();
    expect([onOpen.mock.calls.length, onClose.mock.calls.length]).toEqual([1, 1]);
    stream.reconnect();
    tab.socket.connected();
    stream.close();
    expect([onOpen.mock.calls.length, onClose.mock.calls.length]).toEqual([2, 2]);
  });

  it("leaves, and comes back, as it is told", async () => {
    const { stream } = open();
    tab.socket.connected();
    stream.close();
    tab.draw();
    expect(stream.snapshot()).toMatchObject({ status: "closed", readyState: 3 });
    await vi.advanceTimersByTimeAsync(1_000);
    expect(tab.socket.isClosed).toBe(true);
    stream.reconnect();
    expect(tab.openSockets).toBe(1);
  });
});

describe("a connection", () => {
  it("is one for all streams of a page, and ends a moment after the last", async () => {
    const a = open();
    const b = open();
    expect(tab.sockets.length).toBe(1);
    a.close();
    b.close();
    await vi.advanceTimersByTimeAsync(900);
    const c = open(); // a view that is changed
    await vi.advanceTimersByTimeAsync(2_000);
    expect([tab.sockets.length, tab.openSockets]).toEqual([1, 1]);
    c.close();
    c.close();
    await vi.advanceTimersByTimeAsync(1_000);
    expect([tab.openSockets, tab.listenerCount, vi.getTimerCount()]).toEqual([0, 0, 0]);
  });

  it.each([
    ["another address", ["/ws?a", {}], ["/ws?b", {}]],
    ["other users", ["/ws", { user: "1" }], ["/ws", { user: "2" }]],
    ["not shared", ["/ws", { share: false }], ["/ws", { share: false }]],
  ] as Array<[string, [string, StreamOptions], [string, StreamOptions]]>)("is another's: %s", (_, ...both) => {
    for (const [url, options] of both) closers.push(webSocket(url, { share: "page", ...options }, tab).open());
    expect(tab.sockets.length).toBe(2);
  });

  it("is let go while the page sleeps", async () => {
    const { stream } = open({ channels: ["a:1"] });
    tab.socket.connected();
    publish(1);
    tab.tell("sleep");
    tab.tell("sleep"); // a browser may say it twice
    expect(tab.openSockets).toBe(0);
    tab.draw();
    expect(stream.snapshot().status).toBe("waiting");
    tab.tell("wake");
    tab.tell("wake");
    expect(tab.openSockets).toBe(1);
    tab.socket.connected();
    await settle();
    expect(tab.socket.sent).toEqual([{ type: "subscribe", channels: ["a:1"], since: { "a:1": "a:1/x.1" } }]);
  });
});
