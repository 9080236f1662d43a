import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { type Api, ApiError, createApi, type Stats, takeToken } from "../src/admin/api.js";
import { find } from "../src/admin/find.js";
import { extend, type History, lately, POINTS_MAX } from "../src/admin/history.js";
import { createPoll } from "../src/admin/poll.js";
import { ageOf, diagnosis, reasonOf, stateOf, verdict, wireOf } from "../src/admin/words.js";
import { explained, stalled, statsAt } from "./admin-stats.js";

const START = 1_795_600_000_000;

type Answer = [seconds: number, change?: (stats: Stats) => void];

function after(...answers: Answer[]): History {
  let history: History | null = null;
  for (const [seconds, change] of answers) history = extend(history, statsAt(seconds, change), START + seconds * 1000);
  if (!history) throw new Error("no answers");
  return history;
}

/** Statistics with that many gaps. */
const gaps = (count: number) => (stats: Stats) => {
  stats.delivery.gaps = count;
};

describe("the history", () => {
  it("makes rates of counts", () => {
    const { rates, course } = after(
      [10],
      [
        12,
        (stats) => {
          stats.sse.totalEvents = 30;
          stats.websocket.totalEvents = 70;
          stats.events.received = 10;
          for (const loop of stats.loops) Object.assign(loop, { turns: 8, bytesWritten: 2048 });
        },
      ],
    );
    expect(rates).toEqual({ delivered: 50, received: 5, turns: [4], bytesWritten: [1024] });
    expect(course.delivered).toEqual([null, 50]);
    expect(course.times).toEqual([START / 1000 + 10, START / 1000 + 12]);
    expect(course.sse).toEqual([2, 2]);
  });

  it("draws no delivery time where nothing was delivered", () => {
    const deliver = (deliveries: number) => (stats: Stats) => {
      stats.delivery.recent = { seconds: 5, deliveries, p50Ms: deliveries && 0.5, p99Ms: deliveries && 2 };
    };
    const { course } = after([1, deliver(0)], [2, deliver(9)], [3, deliver(0)]);
    expect(course.p50).toEqual([null, 0.5, null]);
    expect(course.p99).toEqual([null, 2, null]);
  });

  it("leaves a hole where nobody asked for long", () => {
    const delivered490 = (stats: Stats) => {
      stats.sse.totalEvents = 490;
    };
    const { course, rates } = after([10], [11], [60, delivered490]);
    expect(course.sse).toEqual([2, 2, null, 2]);
    expect(course.delivered).toEqual([null, 0, null, null]);
    expect(course.times).toEqual([...course.times].sort((a, b) => a - b));
    expect(rates?.delivered).toBe(10);
  });

  it("begins anew with the gateway", () => {
    const before = after([100, gaps(50)], [101, gaps(60)]);
    expect(lately(before, (stats) => stats.delivery.gaps)).toBe(10);
    const again = extend(before, statsAt(1, gaps(1)), START + 103_000);
    expect(again.rates).toBeNull();
    expect(lately(again, (stats) => stats.delivery.gaps)).toBe(0);
    expect(again.course.sse.slice(-2)).toEqual([null, 2]);
  });

  it("says what rose within a minute", () => {
    const history = after(...Array.from({ length: 100 }, (_, n): Answer => [n + 1, gaps(n)]));
    expect(lately(history, (stats) => stats.delivery.gaps)).toBe(60);
    expect(history.marks).toHaveLength(61);
  });

  it("is bounded", () => {
    const history = after(...Array.from({ length: POINTS_MAX + 50 }, (_, n): Answer => [n + 1]));
    expect(history.course.times).toHaveLength(POINTS_MAX);
    for (const line of Object.values(history.course)) expect(line).toHaveLength(POINTS_MAX);
  });
});

describe("words", () => {
  it.each([
    ["stands still", {}, /^It stands still: its socket has taken nothing for 8 s.* It is owed a gap\.$/],
    ["is slow", { peer: { ...explained.peer, progressMs: 400 }, gapsDue: 0 }, /slow reader, or a slow line\.$/],
    [
      "is far",
      { peer: { ...explained.peer, progressMs: 400, retransmits: 31 }, gapsDue: 2 },
      /31 were sent again\. It is owed 2 gaps/,
    ],
    [
      "is with the kernel",
      { queue: { ...explained.queue, frames: 0 }, gapsDue: 0 },
      /^Nothing waits here; the rest is with the kernel/,
    ],
    [
      "keeps up",
      { queue: { ...explained.queue, frames: 0 }, peer: { ...explained.peer, unackedBytes: 0 }, gapsDue: 0 },
      /^It keeps up: nothing waits\.$/,
    ],
  ])("a stream that %s", (_, change, want) => {
    expect(diagnosis({ ...explained, ...change })).toMatch(want);
  });

  it("has one for every state of the gateway, and shows an unknown one as it is", () => {
    for (const state of [
      "live",
      "connecting",
      "beginning",
      "resuming",
      "queued",
      "catching_up",
      "conflating",
      "dropping",
    ]) {
      expect(stateOf(state).means).not.toBe("");
    }
    expect(stateOf("newer_state")).toMatchObject({ word: "newer_state", tone: "idle" });
  });

  it("names wires, reasons and ages", () => {
    expect(["sse", "sse_plain_without_id", "envelope", "text", "newer"].map(wireOf)).toEqual([
      "SSE",
      "SSE, HTTP/1.0",
      "WebSocket, envelopes",
      "WebSocket",
      "newer",
    ]);
    expect(["unknown_position", "not_json", "not_utf8"].map(reasonOf)).toEqual([
      "Unknown position",
      "Not JSON",
      "Not UTF-8",
    ]);
    expect([0, 1, 59, 61, 120].map((ageMinutes) => ageOf({ ageMinutes }))).toEqual([
      "< 1 min",
      "1 min",
      "59 min",
      "1 h 1 min",
      "2 h",
    ]);
  });

  it("judges the gateway", () => {
    expect(verdict(statsAt(65))).toEqual({ tone: "good", word: "Healthy", text: "Serving for 1 min 5 s." });
    const degraded = verdict(
      statsAt(65, (stats) => {
        stats.status = "degraded";
        stats.broker.reason = "redis:6379: connection refused";
      }),
    );
    expect(degraded.word).toBe("Degraded");
    expect(degraded.text).toContain("redis:6379: connection refused");
    expect(
      verdict(
        statsAt(65, (stats) => {
          stats.status = "draining";
        }),
      ).word,
    ).toBe("Draining");
  });
});

describe("the API", () => {
  function answering(status: number, body: string) {
    const asked: [string, RequestInit | undefined][] = [];
    const api = createApi("secret", async (url, init) => {
      asked.push([String(url), init]);
      return new Response(body, { status });
    });
    return { api, asked };
  }

  it("sends the token in a header, and never in an address", async () => {
    const { api, asked } = answering(200, '{"unsubscribed":3}');
    expect(await api.unsubscribe({ user: "a&b" }, "events:1")).toBe(3);
    expect(asked[0]?.[0]).toBe("/api/admin/unsubscribe?user=a%26b&channel=events%3A1");
    expect(asked[0]?.[1]).toMatchObject({ method: "POST", headers: { Authorization: "Bearer secret" } });
  });

  it("says what the gateway says", async () => {
    const { api } = answering(403, '{"error":{"code":"access_denied","message":"for loopback peers"}}');
    const failure = await api.disconnect({ client: "x" }).catch(ApiError.of);
    expect(failure).toMatchObject({ status: 403, code: "access_denied", message: "for loopback peers", denied: true });
  });

  it("says so when it is somebody else who answers", async () => {
    const { api } = answering(502, "<html>Bad gateway");
    const failure = await api.stats(new AbortController().signal).catch(ApiError.of);
    expect(failure).toMatchObject({ status: 502, denied: false });
    expect(ApiError.of(new TypeError("Failed to fetch"))).toMatchObject({ status: 0, code: "unreachable" });
  });

  it("takes the token out of the page's address", () => {
    const replaceState = vi.fn();
    const at = (href: string) => takeToken({ location: { href }, history: { replaceState } } as unknown as Window);
    expect(at("https://gateway.example/admin?token=abc&x=1")).toBe("abc");
    expect(String(replaceState.mock.calls[0]?.[2])).toBe("https://gateway.example/admin?x=1");
    expect(at("https://gateway.example/admin")).toBeNull();
    expect(replaceState).toHaveBeenCalledOnce();
  });
});

describe("finding", () => {
  const none = { streams: [], matched: 0, open: 9 };
  const signal = new AbortController().signal;

  function finding(answer: (query: Record<string, string>) => unknown) {
    const asked: Record<string, string>[] = [];
    const streams = async (query: Record<string, string>) => {
      asked.push(query);
      const answered = answer(query);
      if (answered instanceof Error) throw answered;
      return answered;
    };
    return { api: { streams } as unknown as Api, asked };
  }

  it("asks for a client and for a user, and for a channel where there can be one", async () => {
    const { api, asked } = finding(() => none);
    expect(await find(api, "456", signal)).toEqual(none);
    expect(asked).toEqual([{ client: "456" }, { user: "456" }]);
    await find(api, "events:1", signal);
    expect(asked.at(-1)).toEqual({ channel: "events:1" });
  });

  it("lists each stream once, and counts those that are not listed", async () => {
    const { api } = finding((query) => {
      if (query["user"]) return { streams: [stalled], matched: 300, open: 900 };
      return { streams: [stalled, { ...stalled, client: "life-2" }], matched: 2, open: 900 };
    });
    const list = await find(api, "456", signal);
    expect(list.streams.map(({ client }) => client)).toEqual(["life-1", "life-2"]);
    expect(list.matched).toBe(301);
  });

  it("passes over a name that can be no channel's, and over nothing else", async () => {
    const bad = new ApiError(400, "bad_channel", "bad");
    const { api } = finding((query) => (query["channel"] ? bad : none));
    expect(await find(api, "::", signal)).toEqual(none);
    const { api: away } = finding((query) => (query["user"] ? new ApiError(503, "overloaded", "a loop") : none));
    await expect(find(away, "456", signal)).rejects.toMatchObject({ status: 503 });
    await expect(find(finding(() => bad).api, "456", signal)).rejects.toBe(bad);
  });
});

describe("a poll", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  function hide(hidden: boolean) {
    Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
  }

  it("asks while somebody listens, one question at a time", async () => {
    let answer = (_: number) => {};
    const ask = vi.fn(() => new Promise<number>((resolve) => (answer = resolve)));
    const poll = createPoll(1_000, ask);
    expect(ask).not.toHaveBeenCalled();
    const leave = poll.subscribe(() => {});
    expect(ask).toHaveBeenCalledOnce();
    await vi.advanceTimersByTimeAsync(3_000);
    expect(ask).toHaveBeenCalledOnce();
    answer(7);
    await vi.advanceTimersByTimeAsync(0);
    expect(poll.snapshot()).toMatchObject({ value: 7, error: null });
    await vi.advanceTimersByTimeAsync(1_000);
    expect(ask).toHaveBeenLastCalledWith(expect.anything(), 7);
    leave();
    answer(8);
    await vi.advanceTimersByTimeAsync(5_000);
    expect(ask).toHaveBeenCalledTimes(2);
    expect(poll.snapshot().value).toBe(7);
  });

  it("keeps what it had while there is no answer, and gives one up that does not come", async () => {
    const ask = vi
      .fn<(signal: AbortSignal) => Promise<number>>()
      .mockResolvedValueOnce(1)
      .mockImplementationOnce(
        (signal) => new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason))),
      )
      .mockResolvedValue(2);
    const poll = createPoll(1_000, ask);
    const leave = poll.subscribe(() => {});
    await vi.advanceTimersByTimeAsync(1_000);
    await vi.advanceTimersByTimeAsync(5_000);
    expect(poll.snapshot()).toMatchObject({ value: 1, error: { status: 0 } });
    await vi.advanceTimersByTimeAsync(1_000);
    expect(poll.snapshot()).toMatchObject({ value: 2, error: null });
    leave();
  });

  it.each([401, 403, 404])("ends at %d, until it is told to try again", async (status) => {
    const ask = vi
      .fn()
      .mockRejectedValueOnce(new ApiError(status, "code", "no"))
      .mockResolvedValue(1);
    const poll = createPoll<number>(1_000, ask);
    const leave = poll.subscribe(() => {});
    await vi.advanceTimersByTimeAsync(10_000);
    expect(ask).toHaveBeenCalledOnce();
    poll.refresh();
    await vi.advanceTimersByTimeAsync(1_000);
    expect(ask).toHaveBeenCalledTimes(3);
    leave();
  });

  it("rests while nobody sees the page", async () => {
    const ask = vi.fn().mockResolvedValue(1);
    const leave = createPoll<number>(1_000, ask).subscribe(() => {});
    await vi.advanceTimersByTimeAsync(0);
    hide(true);
    await vi.advanceTimersByTimeAsync(10_000);
    expect(ask).toHaveBeenCalledOnce();
    hide(false);
    expect(ask).toHaveBeenCalledTimes(2);
    leave();
    hide(true);
    hide(false);
    expect(ask).toHaveBeenCalledTimes(2);
  });
});
