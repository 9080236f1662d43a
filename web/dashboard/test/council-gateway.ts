// A small gateway with a council, on a port of its own: what the page and a gateway say to each other.
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export interface CouncilGateway {
  readonly url: string;
  /** What was asked: `POST /path {body}`, in order. */
  readonly asked: string[];
  /** Says an event to every listener, and remembers it for those who come later. */
  say(event: string, data: unknown): void;
  /** Cuts every stream, without a word. */
  cut(): void;
  /** How the next request is answered instead. */
  refuseNext(status: number, code: string, headers?: Record<string, string>): void;
  listeners(): number;
  close(): Promise<void>;
}

export const GREETING = {
  type: "connected",
  clientId: "c1",
  channels: [],
  councilId: "council 1",
  models: [
    { model: "gemini", label: "Gemini" },
    { model: "claude", label: "Claude" },
  ],
  demo: false,
};

/** How a council ends of which one model failed. */
export const END = {
  type: "complete",
  scores: { gemini: 0.78 },
  mean: 0.78,
  spread: 0.1,
  times: { gemini: 1.23 },
  errors: { claude: "no answer" },
};

export async function startCouncilGateway(): Promise<CouncilGateway> {
  const asked: string[] = [];
  const streams = new Set<ServerResponse>();
  const said = new Map<string, string>();
  let ended: string | undefined;
  let refusal: [status: number, code: string, headers: Record<string, string>] | undefined;

  const frame = (event: string, data: unknown) =>
    `${event ? `event: ${event}\n` : ""}data: ${JSON.stringify(data)}\n\n`;

  function say(event: string, data: unknown): void {
    const { model, chunk } = data as { model?: string; chunk?: string };
    if (model !== undefined && chunk !== undefined) said.set(model, (said.get(model) ?? "") + chunk);
    if (event === "complete") ended = `id: council 1/end\n${frame(event, data)}`;
    for (const one of streams) {
      if (event === "complete") one.end(ended);
      else one.write(frame(event, data));
    }
  }

  function stream(response: ServerResponse): void {
    response.writeHead(200, { "Content-Type": "text/event-stream; charset=utf-8" });
    response.write(`retry: 50\n\n${frame("connected", GREETING)}`);
    for (const [model, text] of said) response.write(frame("", { model, text }));
    if (ended !== undefined) {
      response.end(ended);
      return;
    }
    streams.add(response);
    response.on("close", () => streams.delete(response));
  }

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    let body = "";
    for await (const chunk of request) body += chunk;
    asked.push(`${request.method} ${request.url} ${body}`.trim());
    if (refusal) {
      const [status, code, headers] = refusal;
      refusal = undefined;
      response.writeHead(status, { "Content-Type": "application/json", ...headers });
      response.end(JSON.stringify({ error: { code, message: `refused: ${code}` } }));
    } else if (request.method === "DELETE") {
      response.writeHead(204).end();
      say("complete", { ...END, cancelled: true });
    } else stream(response);
  }

  const server = createServer((request, response) => void answer(request, response));
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    asked,
    say,
    cut() {
      for (const one of streams) one.destroy();
    },
    refuseNext(status, code, headers = {}) {
      refusal = [status, code, headers];
    },
    listeners: () => streams.size,
    async close() {
      server.closeAllConnections();
      await new Promise((closed) => server.close(closed));
    },
  };
}
