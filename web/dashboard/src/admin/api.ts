// What the operator's page asks the gateway, and in which words it answers: docs/operations.md has
// the meaning of each field.

export interface WireStats {
  totalConnections: number;
  totalEvents: number;
}

export interface LoopStats {
  streams: number;
  turns: number;
  writes: number;
  shortWrites: number;
  bytesWritten: number;
  queuedBytes: number;
  lagMs: number;
}

export interface BrokerStats {
  kind: string;
  delivering: boolean;
  reason?: string;
  nodes: number;
  nodesDelivering: number;
  events: number;
  published: number;
  publishErrors: number;
  reconnects: number;
  losses: number;
  reads: number;
  invalidations: number;
  sweepFound: number;
  holes: number;
  wrongTypes: number;
  tracked: number;
  horizon: number;
  horizonAgeMs: number;
  canaryMs: number;
}

export interface DeliveryStats {
  p50Ms: number;
  p99Ms: number;
  deliveries: number;
  recent: { seconds: number; deliveries: number; p50Ms: number; p99Ms: number };
  gaps: number;
  gapsByReason: Record<string, number>;
  dropped: number;
  conflated: number;
  caughtUp: number;
  replayed: number;
  throttled: number;
  behind: number;
  closed: number;
}

/** GET /api/realtime/stats. */
export interface Stats {
  status: "healthy" | "degraded" | "draining";
  uptimeSeconds: number;
  sse: WireStats;
  websocket: WireStats;
  channels: { isConnected: boolean; activeChannels: number; totalSubscriptions: number };
  broker: BrokerStats;
  loops: LoopStats[];
  events: { received: number; dropped: Record<string, number> };
  delivery: DeliveryStats;
  replay: { events: number; bytes: number };
  memory: { heapBytes: number; sysBytes: number; goroutines: number; residentBytes: number };
  ended: Record<string, number>;
}

/** One row of GET /api/admin/streams. */
export interface StreamSummary {
  client: string;
  user?: string;
  wire: string;
  state: string;
  slow: boolean;
  ageMinutes: number;
  address?: string;
  subscriptions: number;
  queuedBytes: number;
  oldestMs: number;
  progressMs: number;
}

export interface StreamList {
  streams: StreamSummary[];
  matched: number;
  open: number;
}

export interface ChannelExplanation {
  channel: string;
  mode: string;
  state: string;
  position?: string;
  streams: number;
}

/** GET /api/admin/explain. */
export interface Explanation {
  client: string;
  user?: string;
  wire: string;
  state: string;
  address?: string;
  greeted: boolean;
  ageMinutes: number;
  channels: ChannelExplanation[];
  queue: { frames: number; bytes: number; oldestMs: number; bytesMax: number; oldestMsMax: number };
  peer: {
    unackedBytes: number;
    unackedSegments: number;
    rttMs: number;
    rttSpreadMs: number;
    retransmits: number;
    progressMs: number;
  };
  dropped: number;
  conflated: number;
  gapsDue: number;
}

/** Whom an action is for: one stream, or all of a user. */
export type Target = { client: string } | { user: string };

/** Why there is no answer. Without a status none came at all. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
    this.name = "ApiError";
  }

  /** Whoever asks may not. */
  get denied(): boolean {
    return this.status === 401 || this.status === 403;
  }

  /** There is no such thing, or no longer. */
  get gone(): boolean {
    return this.status === 404;
  }

  static of(failure: unknown): ApiError {
    if (failure instanceof ApiError) return failure;
    return new ApiError(0, "unreachable", "the gateway does not answer");
  }
}

export interface Api {
  stats(signal: AbortSignal): Promise<Stats>;
  streams(query: Record<string, string>, signal: AbortSignal): Promise<StreamList>;
  explain(client: string, signal: AbortSignal): Promise<Explanation>;
  /** Ends streams, and says how many. */
  disconnect(target: Target): Promise<number>;
  /** Takes a channel from streams, and says from how many. */
  unsubscribe(target: Target, channel: string): Promise<number>;
}

/** Takes the token out of the page's address, where a bookmark or a screenshot would keep it. */
export function takeToken(page: Pick<Window, "location" | "history">): string | null {
  const url = new URL(page.location.href);
  const token = url.searchParams.get("token");
  if (token === null) return null;
  url.searchParams.delete("token");
  page.history.replaceState(null, "", url);
  return token;
}

async function errorOf(response: Response): Promise<ApiError> {
  try {
    const { error } = (await response.json()) as { error: { code: string; message: string } };
    return new ApiError(response.status, error.code, error.message);
  } catch {
    return new ApiError(response.status, "unknown", `the answer is ${response.status}, and not the gateway's own`);
  }
}

/** Asks with a token, or, where it is null, by what the browser adds: the cookie, or being on this machine. */
export function createApi(token: string | null, ask: typeof fetch = (...request) => fetch(...request)): Api {
  const headers: Record<string, string> = token === null ? {} : { Authorization: `Bearer ${token}` };
  const call = async <T>(method: string, path: string, query: Record<string, string>, signal?: AbortSignal) => {
    const search = new URLSearchParams(query).toString();
    const response = await ask(search ? `${path}?${search}` : path, {
      method,
      headers,
      ...(signal ? { signal } : {}),
      cache: "no-store",
    });
    if (!response.ok) throw await errorOf(response);
    return (await response.json()) as T;
  };
  return {
    stats: (signal) => call("GET", "/api/realtime/stats", {}, signal),
    streams: (query, signal) => call("GET", "/api/admin/streams", query, signal),
    explain: (client, signal) => call("GET", "/api/admin/explain", { client }, signal),
    async disconnect(target) {
      const answer = await call<{ disconnected: number }>("POST", "/api/admin/disconnect", target);
      return answer.disconnected;
    },
    async unsubscribe(target, channel) {
      const answer = await call<{ unsubscribed: number }>("POST", "/api/admin/unsubscribe", { ...target, channel });
      return answer.unsubscribed;
    },
  };
}
