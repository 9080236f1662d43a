import type { Explanation, Stats, StreamSummary } from "../src/admin/api.js";

/** Statistics of a gateway that was asked so many seconds after its start, changed by hand. */
export function statsAt(uptimeSeconds: number, change: (stats: Stats) => void = () => {}): Stats {
  const stats: Stats = {
    status: "healthy",
    uptimeSeconds,
    sse: { totalConnections: 2, totalEvents: 0 },
    websocket: { totalConnections: 3, totalEvents: 0 },
    channels: { isConnected: true, activeChannels: 1, totalSubscriptions: 5 },
    broker: {
      kind: "redis",
      delivering: true,
      nodes: 1,
      nodesDelivering: 1,
      events: 0,
      published: 0,
      publishErrors: 0,
      reconnects: 0,
      losses: 0,
      reads: 0,
      invalidations: 0,
      sweepFound: 0,
      holes: 0,
      wrongTypes: 0,
      tracked: 0,
      horizon: 0,
      horizonAgeMs: 1_100,
      canaryMs: 0.4,
    },
    loops: [{ streams: 5, turns: 0, writes: 0, shortWrites: 0, bytesWritten: 0, queuedBytes: 0, lagMs: 0.02 }],
    events: { received: 0, dropped: {} },
    delivery: {
      p50Ms: 0,
      p99Ms: 0,
      deliveries: 0,
      recent: { seconds: 6, deliveries: 0, p50Ms: 0, p99Ms: 0 },
      gaps: 0,
      gapsByReason: { slow: 0 },
      dropped: 0,
      conflated: 0,
      caughtUp: 0,
      replayed: 0,
      throttled: 0,
      behind: 0,
      closed: 0,
    },
    replay: { events: 0, bytes: 0 },
    memory: { heapBytes: 1 << 20, sysBytes: 1 << 22, goroutines: 20, residentBytes: 1 << 23 },
    ended: {},
  };
  change(stats);
  return stats;
}

/** A stream whose client does not read. */
export const stalled: StreamSummary = {
  client: "life-1",
  user: "456",
  wire: "sse",
  state: "dropping",
  slow: true,
  ageMinutes: 3,
  subscriptions: 2,
  queuedBytes: 200_000,
  oldestMs: 9_000,
  progressMs: 8_000,
};

export const explained: Explanation = {
  client: "life-1",
  user: "456",
  wire: "sse",
  state: "dropping",
  greeted: true,
  ageMinutes: 3,
  channels: [{ channel: "events:1", mode: "events", state: "dropping", position: "events:1/life.7", streams: 12 }],
  queue: { frames: 6, bytes: 200_000, oldestMs: 9_000, bytesMax: 262_144, oldestMsMax: 30_000 },
  peer: { unackedBytes: 65_536, unackedSegments: 1, rttMs: 5, rttSpreadMs: 1, retransmits: 0, progressMs: 8_000 },
  dropped: 37,
  conflated: 0,
  gapsDue: 1,
};
