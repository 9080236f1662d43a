import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { type Message, type StreamError, type StreamOptions, sse } from "../src/index.js";
import { Browser, type Tab } from "./browser.js";

// The bytes of a fetch stream travel by the runtime's own tasks, so these tests run on real time.
const SOON = 5;
const URL = "/api/stream?channel=a:1&since=0";

let tab: Tab;
let closers: Array<() => void>;

beforeEach(() => {
  tab = new Browser().tab();
  closers = [];
});

afterEach(() => {
  for (const close of closers) close();
});

function open(options: StreamOptions = {}) {
  const heard: Message[] = [];
  const errors: StreamError[] = [];
  const onMessage = (message: Message) => heard.push(message);
  const onError = (error: StreamError) => errors.push(error);
  const stream = sse(URL, { share: "page", reconnectInterval: SOON, onMessage, onError, ...options }, tab);
  closers.push(stream.open());
  const status = () => {
    tab.draw();
    return stream.snapshot().status;
  };
  return { stream, heard, errors, status };
}

const requests = (count: number) => vi.waitFor(() => expect(tab.requests.length).toBe(count));

describe("by fetch", () => {
  it("hears every event name", async () => {
    const { heard, status } = open();
    tab.request.accept();
    tab.request.write("retry: 1\n\n");
    expect(status()).toBe("connecting");
    tab.request.say("connected", { type: "connected", channels: ["a:1"] });
    tab.request.say("job_progress", { progress: 0.5 }, "a:1/x.1");
    await vi.waitFor(() => expect(heard.length).toBe(1));
    expect(heard[0]).toEqual({
      kind: "event",
      channel: "a:1",
      id: "a:1/x.1",
      type: "job_progress",
      data: { progress: 0.5 },
    });
    expect(status()).toBe("open");
  });

  it("sends token and headers", async () => {
    open({ token: () => "secret", headers: { "X-Tenant": "7" }, withCredentials: true });
    await requests(1);
    expect(tab.request.headers).toEqual({
      Accept: "text/event-stream",
      Authorization: "Bearer secret",
      "X-Tenant": "7",
    });
    expect(tab.request.url).not.toContain("secret");
    expect(tab.request.options.credentials).toBe("include");
  });

  it("goes on from the last id, and not from since", async () => {
    const { heard } = open();
    expect(tab.request.url).toContain("since=0");
    tab.request.accept();
    tab.request.say("t", 1, "a:1/7-0/10");
    tab.request.say("t", 2, "a:1/8-0/10");
    await vi.waitFor(() => expect(heard.length).toBe(2));
    tab.request.end();
    await requests(2);
    expect(tab.request.headers["Last-Event-ID"]).toBe("a:1/8-0/10");
    expect(tab.request.url).not.toContain("since");
    tab.request.accept();
    tab.request.say("t", 2, "a:1/8-0/20");
    tab.request.say("t", 3, "a:1/9-0/20");
    tab.request.say("replayed", { type: "replayed", channel: "a:1", count: 2 });
    await vi.waitFor(() => expect(heard.length).toBe(3));
    expect(heard.map((message) => message.kind === "event" && message.data)).toEqual([1, 2, 3]);
  });

  it("goes on from where a replay ended, whose events have no ids", async () => {
    const { heard } = open();
    tab.request.accept();
    tab.request.say("connected", { type: "connected", channels: ["a:1"] });
    tab.request.say("t", 1);
    tab.request.say("replayed", { type: "replayed", channel: "a:1", count: 1 }, "a:1/x.9");
    await vi.waitFor(() => expect(heard.length).toBe(1));
    tab.request.end();
    await requests(2);
    expect(tab.request.headers["Last-Event-ID"]).toBe("a:1/x.9");
  });

  it("tells of a gap when there is nothing to go on from", async () => {
    const { heard } = open();
    tab.request.accept();
    tab.request.say("connected", { type: "connected", channels: ["a:1"] });
    await vi.waitFor(() => expect(tab.requests.length).toBe(1));
    tab.request.end();
    await requests(2);
    tab.request.accept();
    tab.request.say("connected", { type: "connected", channels: ["a:1"] });
    await vi.waitFor(() =>
      expect(heard).toEqual([{ kind: "gap", channel: "a:1", after: undefined, reason: "unknown_position" }]),
    );
  });

  it.each([
    ["bad request", 400, false],
    ["access denied", 403, false],
    ["not found", 404, false],
    ["too many connections", 429, true],
    ["a broken proxy", 502, true],
    ["overloaded", 503, true],
  ])("after %s comes back, or not", async (_, status, comesBack) => {
    const { errors, status: now } = open();
    tab.request.respond(status, { error: { code: "some_code", message: "said why" } });
    await vi.waitFor(() =>
      expect(errors).toMatchObject([{ code: "some_code", message: "said why", status, final: !comesBack }]),
    );
    if (comesBack) await requests(2);
    else expect(now()).toBe("failed");
  });

  it("gets another token after 401, once", async () => {
    const { errors } = open({ token: () => "old" });
    await requests(1);
    tab.request.respond(401);
    await requests(2);
    tab.request.respond(401, { error: { code: "unauthorized", message: "a bad token" } });
    await vi.waitFor(() => expect(errors.at(-1)).toMatchObject({ code: "unauthorized", final: true }));
  });

  it("waits as long as it is told to", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "Date"] });
    try {
      open();
      tab.request.respond(503, undefined, { "Retry-After": "7" });
      await vi.waitFor(() => expect(vi.getTimerCount()).toBe(1));
      await vi.advanceTimersByTimeAsync(6_900);
      expect(tab.requests.length).toBe(1);
      await vi.advanceTimersByTimeAsync(200);
      expect(tab.requests.length).toBe(2);
    } finally {
      vi.useRealTimers();
    }
  });

  it("knows why the gateway ended the stream", async () => {
    const { errors } = open({ token: () => "old" });
    await requests(1);
    tab.request.accept();
    tab.request.say("connected", { type: "connected", channels: ["a:1"] });
    tab.request.say("server_error", { code: "token_expired", message: "the token expired" });
    tab.request.end();
    await vi.waitFor(() => expect(errors).toMatchObject([{ code: "token_expired", final: false }]));
    await requests(2);
  });

  it("hands over the end as it is where it has no data of its own", async () => {
    const { heard } = open();
    tab.request.accept();
    tab.request.say("complete", { type: "complete", scores: { a: 0.5 } }, "s/end");
    await vi.waitFor(() => expect(heard).toMatchObject([{ kind: "complete", data: { scores: { a: 0.5 } } }]));
  });

  it("is done when the stream is complete, or was", async () => {
    const { heard, status } = open();
    tab.request.accept();
    tab.request.say("complete", { type: "complete", data: 1 }, "s/end");
    await vi.waitFor(() => expect(heard).toMatchObject([{ kind: "complete", data: 1 }]));
    expect(status()).toBe("complete");
    const again = open({ share: false });
    tab.request.respond(204);
    await vi.waitFor(() => expect(again.status()).toBe("complete"));
    expect(again.errors).toEqual([]);
  });

  it.each([
    ["another type", "text/html", "", "unsupported"],
    ["a message without an end", "text/event-stream", `data: ${"x".repeat(3_000)}`, "too_large"],
  ])("does not go on with %s", async (_, type, text, code) => {
    const { errors } = open({ maxMessageBytes: 1_000 });
    tab.request.accept(type);
    tab.request.write(text);
    await vi.waitFor(() => expect(errors).toMatchObject([{ code, final: true }]));
  });

  it("lets go of the request when nobody listens", async () => {
    vi.useFakeTimers();
    try {
      const { stream } = open();
      closers.pop()?.();
      await vi.advanceTimersByTimeAsync(1_000);
      expect(tab.request.isClosed).toBe(true);
      expect(stream.snapshot().status).toBe("idle");
    } finally {
      vi.useRealTimers();
    }
  });
});

describe("by EventSource", () => {
  const eventsource = { transport: "eventsource", events: ["job_progress"] } as const;

  it("hears the names that it was told", () => {
    const { heard, status } = open(eventsource);
    tab.eventSource.say("connected", { type: "connected", channels: ["a:1"] });
    tab.eventSource.say("job_progress", 1, "a:1/x.1");
    tab.eventSource.say("unknown", 2, "a:1/x.2");
    tab.eventSource.say("message", 3, "a:1/x.3");
    tab.eventSource.say("gap", { type: "gap", channel: "a:1", reason: "slow" });
    expect(heard.map((message) => (message.kind === "event" ? message.data : message.kind))).toEqual([1, 3, "gap"]);
    expect(status()).toBe("open");
  });

  it("comes back when a browser would not, with the position in its address", async () => {
    const { heard } = open(eventsource);
    tab.eventSource.say("job_progress", 1, "a:1/x.1");
    tab.eventSource.drop();
    expect(tab.eventSource.isClosed).toBe(true);
    await vi.waitFor(() => expect(tab.eventSources.length).toBe(2));
    const { searchParams } = new globalThis.URL(tab.eventSource.url);
    expect([searchParams.get("lastEventId"), searchParams.get("since")]).toEqual(["a:1/x.1", null]);
    tab.eventSource.say("job_progress", 2, "a:1/x.2");
    expect(heard.length).toBe(2);
  });

  it.each([
    ["not by itself", false, null],
    ["if it was asked to", true, "secret"],
  ])("sends a token in the address %s", async (_, tokenInQuery, want) => {
    open({ ...eventsource, token: () => "secret", tokenInQuery });
    await vi.waitFor(() => expect(tab.eventSources.length).toBe(1));
    expect(new globalThis.URL(tab.eventSource.url).searchParams.get("token")).toBe(want);
  });

  it("does not take the id of the event before for its own", () => {
    const { heard } = open(eventsource);
    tab.eventSource.say("connected", { type: "connected", channels: ["a:1"] });
    tab.eventSource.say("message", 1, "a:1/x.1");
    tab.eventSource.say("message", 2);
    expect(heard.map((message) => message.kind === "event" && message.id)).toEqual(["a:1/x.1", undefined]);
  });
});
