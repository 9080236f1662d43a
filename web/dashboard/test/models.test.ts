import { describe, expect, it } from "vitest";
import { conclude, greet, hear, nobody } from "../src/council/council.js";
import { currentAccount, defaultsOf, keepToken, tokenUser, withUser } from "../src/model/account.js";
import {
  ALERTS_MAX,
  type Alert,
  type Alerts,
  acknowledge,
  addAlert,
  alertOf,
  keepAlerts,
  keptAlerts,
  mergeAlerts,
  spoken,
  unacknowledged,
} from "../src/model/alerts.js";
import { addMetrics, METRICS, noCampaigns, removeCampaign } from "../src/model/campaigns.js";
import { idsOf, isChannel, numberIn, textIn, timeIn } from "../src/model/fields.js";
import { addPoint, emptyHistory, POINTS_MAX } from "../src/model/history.js";
import { addJobEvent, type Jobs, secondsLeft } from "../src/model/jobs.js";
import { hashOf, routeOf } from "../src/model/route.js";
import { createStore } from "../src/model/store.js";
import { bytes, count, duration, milliseconds, percent, timeOfDay, when } from "../src/shared/format.js";
import { rangeOf } from "../src/shared/line-chart.js";

describe("fields of a payload", () => {
  it.each([
    ["a number", { n: 1.5 }, 1.5],
    ["a hash's text", { n: "1.5" }, 1.5],
    ["another text", { n: "one" }, undefined],
    ["an empty text", { n: " " }, undefined],
    ["no number", { n: Number.NaN }, undefined],
    ["nothing", {}, undefined],
  ])("a number from %s", (_, fields, want) => expect(numberIn(fields, "n")).toBe(want));

  it("cuts a long text", () => expect(textIn({ t: "x".repeat(10_000) }, "t")).toHaveLength(501));

  it.each([
    ["RFC 3339", "2026-11-02T13:00:00Z", Date.UTC(2026, 10, 2, 13)],
    ["milliseconds", 1_700_000_000_000, 1_700_000_000_000],
    ["no time", "yesterday", 7],
    ["none", undefined, 7],
  ])("the time from %s", (_, timestamp, want) => expect(timeIn({ timestamp }, 7)).toBe(want));

  it("takes from an index what can stand in a channel, each once", () => {
    const ids = ["a", "b:c", "a", "index", "", 5, "d"];
    expect(idsOf({ type: "index", ids }, 9)).toEqual(["a", "d"]);
    expect(idsOf({ ids: ["a", "b", "c"] }, 2)).toEqual(["a", "b"]);
    expect(idsOf("ids", 2)).toEqual([]);
  });

  it.each([
    ["job_progress:job_123", true],
    ["x:1:2", true],
    ["x", false],
    ["x:1:2:3", false],
    ["x:", false],
    ["__x:1", false],
    ["x:a b", false],
    [`x:${"a".repeat(129)}`, false],
  ])("%s as a channel: %s", (text, want) => expect(isChannel(text)).toBe(want));
});

describe("a job", () => {
  const at = Date.UTC(2026, 10, 2);
  const after = (...events: object[]): Jobs =>
    events.reduce<Jobs>((jobs, event, second) => addJobEvent(jobs, "job_progress:1", event, at + second * 1000), []);

  it("is what its events told so far", () => {
    const [job] = after(
      { status: "queued", progress: 0 },
      { status: "processing", progress: 0.25, fps: 50, frame: 250, frames: 1000, speed: 2 },
      { progress: 0.5, frame: 500, message: "half" },
    );
    expect(job).toMatchObject({ id: "1", status: "processing", progress: 0.5, fps: 50, message: "half" });
    expect(job && secondsLeft(job)).toBe(10);
  });

  it("is reckoned by the time that it took, where it tells no frames", () => {
    const [job] = after({ progress: 0.1 }, {}, {}, { progress: 0.25 });
    expect(job && secondsLeft(job)).toBe(9);
  });

  it.each([
    ["more than all", { progress: 7 }, 1, "complete"],
    ["less than nothing", { progress: -1 }, 0, "queued"],
    ["the seed's word", { status: "processing", progress: 0.3 }, 0.3, "processing"],
    ["an unknown word", { status: "melting", progress: 0.3 }, 0.3, "processing"],
    ["an end without progress", { status: "complete" }, 1, "complete"],
    ["an array", [1, 2], 0, "queued"],
  ])("takes %s", (_, event, progress, status) => expect(after(event)[0]).toMatchObject({ progress, status }));

  it("begins anew when its id is used again", () => {
    const [job] = after({ progress: 1, status: "complete", message: "done" }, { status: "queued", progress: 0 });
    expect(job).toMatchObject({ status: "queued", progress: 0, message: undefined, startedAt: at + 1000 });
  });

  it("keeps its progress when a stage comes late, and takes the stage's end", () => {
    let jobs = after({ status: "processing", progress: 0.5 });
    jobs = addJobEvent(jobs, "video_render:1", { stage: "started", width: 1280, height: 720 }, at);
    expect(jobs).toMatchObject([{ status: "processing", progress: 0.5, format: "1280 × 720" }]);
    jobs = addJobEvent(jobs, "video_render:1", { stage: "finished" }, at);
    expect(jobs).toMatchObject([{ status: "complete", progress: 1 }]);
  });

  it("keeps its place, the last begun being the first", () => {
    let jobs: Jobs = [];
    for (const [id, second] of [
      ["a", 1],
      ["c", 3],
      ["b", 2],
      ["a", 9],
    ] as const) {
      jobs = addJobEvent(jobs, `job_progress:${id}`, { progress: 0.1 }, at + second * 1000);
    }
    expect(jobs.map(({ id }) => id)).toEqual(["c", "b", "a"]);
  });

  it("is forgotten when there are too many", () => {
    let jobs: Jobs = [];
    for (let n = 0; n < 100; n++) jobs = addJobEvent(jobs, `job_progress:${n}`, {}, at + n);
    expect([jobs.length, jobs[0]?.id]).toEqual([40, "99"]);
  });
});

describe("a history", () => {
  it("is bounded, and its rows stay as long as its times", () => {
    let history = emptyHistory(2);
    for (let n = 0; n < POINTS_MAX + 50; n++) history = addPoint(history, n * 1000, [n, null]);
    expect([history.times.length, ...history.rows.map((row) => row.length)]).toEqual(Array(3).fill(POINTS_MAX));
    expect([history.times[0], history.rows[0]?.at(-1)]).toEqual([50, POINTS_MAX + 49]);
  });

  it("takes the newest of what comes within half a second, or from the past", () => {
    let history = emptyHistory(1);
    for (const [ms, value] of [
      [1000, 1],
      [1400, 2],
      [1600, 3],
      [900, 4],
    ] as const)
      history = addPoint(history, ms, [value]);
    expect(history).toEqual({ times: [1, 1.6], rows: [[2, 4]] });
  });

  it("lets go of what is long past", () => {
    const history = addPoint(addPoint(emptyHistory(1), 1000, [1]), 10_000_000, [2]);
    expect(history).toEqual({ times: [10_000], rows: [[2]] });
  });
});

describe("campaigns", () => {
  const index = (field: string) => METRICS.findIndex((metric) => metric.field === field);

  it("computes the ratios that are not told, and totals of all", () => {
    let all = addMetrics(
      noCampaigns,
      "campaign_metrics:a",
      { impressions: 1000, clicks: 20, spend: 10, revenue: 40 },
      1000,
    );
    all = addMetrics(all, "campaign_metrics:b", { impressions: "3000", clicks: "20", spend: "30" }, 2000);
    const values = (at: number) => (field: string) => all.all[at]?.values[index(field)];
    expect(["ctr", "cpc", "roas"].map(values(0))).toEqual([0.02, 0.5, 4]);
    expect(["impressions", "ctr", "roas", "revenue"].map(values(1))).toEqual([3000, 20 / 3000, null, null]);
    const total = (field: string) => all.totals.rows[index(field)]?.at(-1);
    expect(["impressions", "clicks", "spend", "ctr", "roas", "conversions"].map(total)).toEqual([
      4000,
      40,
      40,
      0.01,
      1,
      null,
    ]);
  });

  it("leaves alone what tells no numbers, and forgets what is deleted", () => {
    const one = addMetrics(noCampaigns, "campaign_metrics:a", { clicks: 1 }, 1000);
    expect(addMetrics(one, "campaign_metrics:b", { type: "index", ids: [] }, 1000)).toBe(one);
    expect(removeCampaign(one, "campaign_metrics:b")).toBe(one);
    expect(removeCampaign(one, "campaign_metrics:a").all).toEqual([]);
  });
});

describe("alerts", () => {
  const alert = (id: string, at = 0, more: Partial<Alert> = {}): Alert => {
    const made = alertOf({ id, title: id, ...more }, "", at);
    if (!made) throw new Error("no alert");
    return made;
  };

  it.each([
    [
      "the seed's",
      { severity: "warning", message: "Slow" },
      { severity: "warning", title: "Slow", message: undefined },
    ],
    [
      "in capitals",
      { severity: "CRITICAL", title: "T", message: "M" },
      { severity: "critical", title: "T", message: "M" },
    ],
    ["of an unknown severity", { severity: "odd", title: "T" }, { severity: "info" }],
    ["without an id", { title: "T" }, { id: "fallback" }],
  ])("reads one %s", (_, data, want) =>
    expect(alertOf(data, "fallback", 5)).toMatchObject({ at: 5, acknowledged: false, ...want }),
  );

  it("reads none from what says nothing", () => expect(alertOf({ severity: "warning" }, "x", 0)).toBeUndefined());

  it("keeps the newest first, each once, and not too many", () => {
    let all = [alert("a", 1), alert("c", 3), alert("b", 2), alert("a", 9)].reduce<Alerts>(addAlert, []);
    expect(all.map(({ id }) => id)).toEqual(["c", "b", "a"]);
    for (let n = 0; n < ALERTS_MAX + 20; n++) all = addAlert(all, alert(`n${n}`, 10 + n));
    expect([all.length, all[0]?.id]).toEqual([ALERTS_MAX, `n${ALERTS_MAX + 19}`]);
  });

  it("acknowledges, takes it back, and counts", () => {
    const all = [alert("b", 2), alert("a", 1)];
    const one = acknowledge(all, new Set(["a"]));
    expect([unacknowledged(all), unacknowledged(one)]).toEqual([2, 1]);
    expect(acknowledge(one, new Set(["a"]))).toBe(one);
    expect(unacknowledged(acknowledge(one, new Set(["a"]), false))).toBe(2);
  });

  it("outlives a reload", () => {
    const all = acknowledge([alert("b", 2, { message: "M", value: 1 }), alert("a", 1)], new Set(["b"]));
    expect(keptAlerts(keepAlerts(all))).toEqual(all);
  });

  it.each([null, "", "{", "7", '[1,{"title":"no id"},null]'])("reads nothing from %j", (text) => {
    expect(keptAlerts(text)).toEqual([]);
  });

  it("merges what two tabs know", () => {
    const ours = [alert("c", 3), alert("a", 1)];
    const theirs = acknowledge([alert("b", 2), alert("a", 1)], new Set(["a"]));
    expect(mergeAlerts(ours, theirs).map(({ id, acknowledged }) => [id, acknowledged])).toEqual([
      ["c", false],
      ["b", false],
      ["a", true],
    ]);
  });

  it("is read out in words", () => expect(spoken(alert("T", 0, { message: "M" }))).toBe("Info: T. M"));
});

describe("a council", () => {
  const greeting = { models: [{ model: "a", label: "A" }, { model: "b" }], demo: true };

  it("fills as the models speak", () => {
    let council = greet(nobody, greeting);
    for (const data of [
      { model: "a", chunk: "one " },
      { model: "b", chunk: "x" },
      { model: "a", chunk: "two" },
    ]) {
      council = hear(council, data);
    }
    council = hear(council, { model: "a", score: 1.7, reason: "good" });
    council = hear(council, { model: "b", error: "silent" });
    expect(council).toMatchObject({
      demo: true,
      seats: [
        { model: "a", label: "A", text: "one two", score: 1, reason: "good" },
        { model: "b", label: "b", text: "x", score: undefined, error: "silent" },
      ],
    });
    council = conclude(council, {
      scores: { a: 0.9 },
      mean: 0.9,
      spread: 0,
      times: { a: 1.5 },
      errors: { b: "silent" },
    });
    expect(council).toMatchObject({
      seats: [{ score: 0.9, seconds: 1.5 }, { error: "silent" }],
      verdict: { mean: 0.9, spread: 0 },
    });
  });

  it("is greeted again on a resumed stream, and its text is replaced by all that was said", () => {
    let council = hear(greet(nobody, greeting), { model: "a", chunk: "one" });
    council = hear(greet(council, greeting), { model: "a", text: "one two" });
    expect(council.seats.map(({ text }) => text)).toEqual(["one two", ""]);
  });

  it.each([null, "x", {}, { model: 5 }])("takes no notice of %j", (data) => expect(hear(nobody, data)).toBe(nobody));
});

describe("who looks", () => {
  const token = `x.${btoa(JSON.stringify({ sub: "jörg" })).replaceAll("=", "")}.y`;

  it("is in the address, or in a token for this tab", () => {
    expect(currentAccount("?userId=456")).toEqual({ userId: "456", token: undefined });
    keepToken(token);
    expect(currentAccount("")).toEqual({ userId: undefined, token });
    keepToken(undefined);
    expect(currentAccount("").token).toBeUndefined();
  });

  it("names the connection", () => {
    expect(defaultsOf({ userId: "4 6", token: undefined })).toEqual({ url: "/ws?userId=4+6", user: "4 6" });
    expect(defaultsOf({ userId: undefined, token: "no token" })).not.toHaveProperty("user");
    expect(withUser("/x", { userId: undefined, token }, { id: "a/b" })).toBe("/x?id=a%2Fb");
  });

  it.each([
    ["eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI0NTYifQ.x", "456"],
    ["nothing", undefined],
    ["a.b.c", undefined],
  ])("%s names %s", (text, user) => expect(tokenUser(text)).toBe(user));
});

describe("the address", () => {
  it.each([
    ["", "dashboard", undefined],
    ["#/alerts", "alerts", undefined],
    ["#/council/a%2Fb", "council", "a/b"],
    ["#/council/%", "council", undefined],
    ["#/nowhere", "dashboard", undefined],
  ])("%j is the view %s", (hash, view, id) => expect(routeOf(hash)).toEqual({ view, id }));

  it("says what it is read as", () =>
    expect(routeOf(hashOf("council", "a/b c"))).toEqual({ view: "council", id: "a/b c" }));
});

it("a store tells its observers once a frame, with all changes in force", () => {
  const frames: Array<() => void> = [];
  const store = createStore(0, (callback) => frames.push(callback));
  let told = 0;
  const leave = store.watch(() => told++);
  for (let n = 0; n < 1000; n++) store.update((value) => value + 1);
  expect([store.get(), frames.length, told]).toEqual([0, 1, 0]);
  frames.pop()?.();
  expect([store.get(), told]).toEqual([1000, 1]);
  store.update((value) => value);
  expect(frames).toEqual([]);
  leave();
  store.update(() => 5);
  frames.pop()?.();
  expect([store.get(), told]).toEqual([5, 1]);
});

describe("numbers as people read them", () => {
  it.each([
    [count(1234.4), "1,234"],
    [count(12_345_678), "12.3M"],
    [percent(0.0312), "3.12 %"],
    [milliseconds(0.42), "0.42 ms"],
    [milliseconds(12.4), "12 ms"],
    [milliseconds(1250), "1.25 s"],
    [duration(8.4), "8 s"],
    [duration(65), "1 min 5 s"],
    [duration(7380), "2 h 3 min"],
    [bytes(512), "512 B"],
    [bytes(1536), "1.5 KiB"],
    [bytes(21_076_000), "20.1 MiB"],
  ])("%s", (got, want) => expect(got).toBe(want));

  it("a day is named where it is not today", () => {
    const noon = new Date(2026, 1, 1, 12).getTime();
    expect([when(noon, noon + 60_000), when(noon, noon + 86_400_000)]).toEqual(["12:00:00", "Feb 1, 12:00:00"]);
  });

  it("midnight is no 24 o'clock", () => expect(timeOfDay(new Date(2026, 1, 1, 0, 5, 9).getTime())).toBe("00:05:09"));
});

describe("the range of an axis", () => {
  it("shows what hardly moves as hardly moving", () => {
    const [low, high] = rangeOf(99.9, 100.1);
    expect(high - low).toBeGreaterThan(5);
  });
  it("reaches down to its floor", () => expect(rangeOf(50, 100, 0)[0]).toBe(0));
  it("is something where there is nothing", () => expect(rangeOf(null, null)).toEqual([0, 1]));
  it("is something where there are zeros alone", () => expect(rangeOf(0, 0, 0)).toEqual([0, 1]));
});
