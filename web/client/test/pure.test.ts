import { gzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { backoffMs } from "../src/backoff.js";
import { createDecoder, type Decoder } from "../src/decode.js";
import { channelOf, eventOf } from "../src/ids.js";
import { inflate } from "../src/inflate.js";
import { createLedger } from "../src/ledger.js";
import type { EventMessage, Incoming, Notice } from "../src/types.js";

describe("backoff", () => {
  it.each([
    ["first, shortest", 1, 0, 500],
    ["first, longest", 1, 1, 1_000],
    ["doubling", 4, 1, 8_000],
    ["bounded", 9, 1, 30_000],
    ["bounded for ever", 1e6, 1, 30_000],
  ])("%s", (_, attempt, random, want) => {
    expect(backoffMs(attempt, random)).toBe(want);
  });
});

describe("ids", () => {
  it.each([
    ["an event's", "a:1/k3.41", "a:1"],
    ["a log's", "a:1:u/17-0/99", "a:1:u"],
    ["a value with a slash", "a:1/=x/y", "a:1"],
    ["no id", "forty-one", undefined],
    ["none", undefined, undefined],
  ])("channel of %s", (_, id, want) => expect(channelOf(id)).toBe(want));

  it.each([
    ["a log's", "a:1/1700-3/1800", "a:1/1700-3"],
    ["without a horizon", "a:1/1700-3", "a:1/1700-3"],
    ["an event's", "a:1/k3.41", "a:1/k3.41"],
    ["a value's", "a:1/=1700-3/5x", "a:1/=1700-3/5x"],
  ])("event of %s", (_, id, want) => expect(eventOf(id)).toBe(want));
});

const event = (channel: string, id: string | undefined, data: unknown = 0): EventMessage => ({
  kind: "event",
  channel,
  id,
  type: "message",
  data,
});
const notice = (type: string, channel: string | undefined, data: Record<string, unknown> = {}): Notice => ({
  kind: "notice",
  type,
  channel,
  data,
});

describe("ledger", () => {
  it("drops what it has seen, but only between a resume and replayed", () => {
    const ledger = createLedger();
    const accept = (id: string) => ledger.accept(event("a:1", id));
    expect([accept("a:1/5-0/10"), accept("a:1/7-0/10"), accept("a:1/7-0/10")]).toEqual([true, true, true]);
    ledger.resume();
    // The same entries, read again behind other horizons.
    expect([accept("a:1/5-0/20"), accept("a:1/7-0/20"), accept("a:1/8-0/20")]).toEqual([false, false, true]);
    ledger.accept(notice("replayed", "a:1"));
    expect(accept("a:1/7-0/30")).toBe(true);
  });

  it("remembers the last few thousand events", () => {
    const ledger = createLedger();
    for (let n = 0; n < 5_000; n++) ledger.accept(event("a:1", `a:1/=v${n}`));
    ledger.resume();
    expect(ledger.accept(event("a:1", "a:1/=v4999"))).toBe(false);
    expect(ledger.accept(event("a:1", "a:1/=v1"))).toBe(true); // too long ago to be remembered
  });

  it("delivers again what a gap took back", () => {
    const ledger = createLedger();
    ledger.accept(event("a:1", "a:1/5-0/0"));
    ledger.accept({ kind: "gap", channel: "a:1", after: "a:1/5-0/0", reason: "slow" });
    ledger.accept(event("a:1", "a:1/9-0/0"));
    ledger.resume();
    expect(ledger.accept(event("a:1", "a:1/7-0/0"))).toBe(true); // dropped then, here now
    expect(ledger.accept(event("a:1", "a:1/9-0/0"))).toBe(false);
  });

  it("lets a log that was rewound use its ids again", () => {
    const ledger = createLedger();
    ledger.accept(event("a:1", "a:1/5-0/0"));
    ledger.accept(event("a:1", "a:1/9-0/0"));
    ledger.resume();
    ledger.accept({ kind: "gap", channel: "a:1", after: "a:1/9-0/0", reason: "rewound" });
    expect(ledger.accept(event("a:1", "a:1/5-0/0"))).toBe(true);
  });

  it("keeps a position for each channel, and the newest of all", () => {
    const ledger = createLedger();
    ledger.accept(event("a:1", "a:1/x.1"));
    ledger.accept(event("b:1", "b:1/x.2"));
    expect([ledger.position("a:1"), ledger.position("b:1"), ledger.position("c:1")]).toEqual([
      "a:1/x.1",
      "b:1/x.2",
      undefined,
    ]);
    expect(ledger.lastEventId()).toBe("b:1/x.2");
  });

  it("knows which channels can't say what they missed", () => {
    const ledger = createLedger();
    ledger.accept(notice("connected", undefined, { channels: ["quiet:1", "busy:1"] }));
    ledger.accept(notice("subscribed", "state:1"));
    ledger.accept(event("busy:1", "busy:1/x.1"));
    ledger.accept(event("state:1", undefined, 7));
    expect(["quiet:1", "busy:1", "state:1", "other:1"].map((channel) => ledger.isLost(channel))).toEqual([
      true,
      false,
      false,
      false,
    ]);
  });

  it("takes no batch for a state, and does not know where it left off", () => {
    const ledger = createLedger();
    ledger.accept(notice("subscribed", "b:1"));
    ledger.accept(event("b:1", "", 1));
    expect([ledger.value("b:1"), ledger.isLost("b:1")]).toEqual([undefined, true]);
  });

  it("takes its position from the end of a replay, too", () => {
    const ledger = createLedger();
    ledger.accept(event("a:1", "a:1/x.1"));
    ledger.accept({ ...notice("replayed", "a:1"), id: "a:1/x.7" });
    expect(ledger.lastEventId()).toBe("a:1/x.7");
    ledger.accept({ kind: "gap", channel: "a:1", after: undefined, reason: "unknown_position", id: "a:1/y.2" });
    expect(ledger.lastEventId()).toBe("a:1/y.2");
  });

  it("keeps the value of a state until it is deleted", () => {
    const ledger = createLedger();
    ledger.accept(event("s:1", undefined, 1));
    ledger.accept(event("s:1", undefined, 2));
    expect(ledger.value("s:1")?.data).toBe(2);
    ledger.accept({ kind: "deleted", channel: "s:1" });
    expect(ledger.value("s:1")).toBeUndefined();
  });

  it("is bounded", () => {
    const ledger = createLedger();
    for (let n = 0; n < 10_000; n++) ledger.accept(event(`w:${n}`, `w:${n}/x.${n}`));
    expect(ledger.page().channels.size).toBeLessThanOrEqual(4_096);
  });
});

describe("decoder", () => {
  const decoder = () => createDecoder(1_000);
  const zipped = (data: unknown) => ({
    type: "compressed",
    encoding: "gzip",
    data: gzipSync(JSON.stringify(data)).toString("base64"),
  });

  it.each([
    ["an event", { type: "event", channel: "a:1", id: "a:1/x.1", data: { type: "t", n: 1 } }, "a:1/x.1", "t"],
    ["one without an id", { type: "event", channel: "a:1", data: { type: "t", n: 1 } }, undefined, "t"],
    ["one that claims to be a gap", { type: "event", channel: "a:1", data: { type: "gap" } }, undefined, "message"],
    ["one whose name is no word", { type: "event", channel: "a:1", data: { type: "a b" } }, undefined, "message"],
    ["text", { type: "event", channel: "a:1", data: "text" }, undefined, "message"],
  ])("envelope: %s", (_, message, id, type) => {
    const want = { kind: "event", channel: "a:1", id, type, data: message.data };
    expect(decoder().envelope(JSON.stringify(message))).toEqual([want]);
  });

  it("undoes a batch, whose id is its last event's", () => {
    const batch = { type: "batch", channel: "a:1", id: "a:1/x.3", events: [{ type: "t" }, 2, 3] };
    const want = [
      { kind: "event", channel: "a:1", id: "", type: "t", data: { type: "t" } },
      { kind: "event", channel: "a:1", id: "", type: "message", data: 2 },
      { kind: "event", channel: "a:1", id: "a:1/x.3", type: "message", data: 3 },
    ];
    expect(decoder().envelope(JSON.stringify(batch))).toEqual(want);
    expect(decoder().sse("batch", "a:1/x.3", JSON.stringify({ ...batch, id: undefined }))).toEqual(want);
  });

  it.each([
    [
      "in an envelope",
      (d: Decoder, z: object) => d.envelope(JSON.stringify({ type: "event", channel: "a:1", data: z })),
    ],
    ["as a message", (d: Decoder, z: object) => d.envelope(JSON.stringify({ ...z, channel: "a:1" }))],
    ["on SSE", (d: Decoder, z: object) => d.sse("compressed", "a:1/x.1", JSON.stringify(z))],
  ])("undoes what is compressed: %s", async (_, decode) => {
    const data = { type: "t", text: "żółć 🌊".repeat(20) };
    expect(await decode(decoder(), zipped(data))).toMatchObject([{ kind: "event", channel: "a:1", type: "t", data }]);
  });

  it("leaves a worker's own word as it is", async () => {
    const data = { type: "compressed", encoding: "gzip", data: "no gzip" };
    const text = JSON.stringify({ type: "event", channel: "a:1", data });
    expect(await decoder().envelope(text)).toMatchObject([{ data }]);
  });

  it.each([
    ["gap", { type: "gap", channel: "a:1", after: "a:1/x.1", reason: "slow" }, { after: "a:1/x.1", reason: "slow" }],
    ["deleted", { type: "deleted", channel: "a:1" }, {}],
  ])("%s, on both wires", (kind, message, rest) => {
    const want = [{ kind, channel: "a:1", ...rest }];
    expect(decoder().envelope(JSON.stringify(message))).toEqual(want);
    expect(decoder().sse(kind, undefined, JSON.stringify(message))).toEqual(want);
  });

  it("SSE: takes nothing from a payload that pretends", () => {
    const [message] = decoder().sse("message", "a:1/x.1", '{"type":"complete"}') as Incoming[];
    expect(message).toMatchObject({ kind: "event", channel: "a:1", type: "message" });
  });

  it("SSE: an event without an id is the only channel's", () => {
    const one = decoder();
    one.sse("connected", undefined, '{"type":"connected","channels":["a:1"]}');
    expect(one.sse("t", undefined, "1")).toMatchObject([{ channel: "a:1" }]);
    const several = decoder();
    several.sse("connected", undefined, '{"type":"connected","channels":["a:1","b:1"]}');
    expect(several.sse("t", undefined, "1")).toMatchObject([{ channel: undefined }]);
  });

  it("hands over text that is no JSON", () => {
    expect(decoder().sse("chunk", undefined, "plain")).toMatchObject([{ kind: "event", type: "chunk", data: "plain" }]);
  });
});

describe("inflate", () => {
  it("stops at a bomb", async () => {
    const bomb = gzipSync(Buffer.alloc(10 << 20)).toString("base64");
    expect(bomb.length).toBeLessThan(20_000);
    await expect(inflate(bomb, 100_000)).rejects.toThrow(RangeError);
  });

  it("refuses what is no text", async () => {
    await expect(inflate(gzipSync(Buffer.from([0xff, 0xfe])).toString("base64"), 100)).rejects.toThrow();
  });
});
