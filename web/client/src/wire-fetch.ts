import { createParser } from "eventsource-parser";
import { createDecoder } from "./decode.js";
import { readText } from "./inflate.js";
import { createIntake, type Intake, tooLarge } from "./intake.js";
import { type End, ended, LOST, type OpenWire, resumeAddress, type WireEvents, type WireRequest } from "./wire.js";

/** SSE read with `fetch`: it sends headers, hears every event name and learns why it was refused. */
export const openFetch: OpenWire = (request, events) => {
  const stopping = new AbortController();
  const intake = createIntake(events, () => stopping.abort());
  ask(request, stopping.signal)
    .then((response) => (response.status === 200 ? follow(response, request, events, intake) : refusal(response)))
    .catch(() => LOST)
    .then(intake.end);
  return { close: intake.close };
};

function ask(request: WireRequest, signal: AbortSignal): Promise<Response> {
  const { page, token, lastEventId, options } = request;
  const headers: Record<string, string> = { Accept: "text/event-stream", ...options.headers };
  if (lastEventId !== undefined) headers["Last-Event-ID"] = lastEventId;
  if (token !== undefined) headers["Authorization"] = `Bearer ${token}`;
  const credentials = options.withCredentials ? "include" : "same-origin";
  return page.fetch(resumeAddress(request).href, { headers, signal, cache: "no-store", credentials });
}

/** Reads to the end. */
async function follow(response: Response, request: WireRequest, events: WireEvents, intake: Intake): Promise<End> {
  const { body, headers } = response;
  if (!body || !/event-stream/.test(`${headers.get("Content-Type")}`)) {
    return ended("unsupported", "no event stream", true);
  }
  const { bytesMax } = request;
  const decoder = createDecoder(bytesMax);
  let afterMs = 0;
  const parser = createParser({
    maxBufferSize: bytesMax,
    onEvent: ({ event, id, data }) => intake.push(() => decoder.sse(event ?? "message", id, data)),
    onComment: events.heard,
    onRetry: (milliseconds) => {
      afterMs = milliseconds;
    },
    onError: ({ type }) => {
      if (type !== "max-buffer-size-exceeded") return; // a field that nobody knows is no error
      intake.push(() => {
        throw tooLarge(bytesMax);
      });
    },
  });
  const reader = readText(body);
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return { ...LOST, afterMs };
    parser.feed(value);
  }
}

/** After some answers another attempt would be answered the same. */
async function refusal(response: Response): Promise<End> {
  const { status } = response;
  const { error } = (await response.json().catch(() => ({}))) as { error?: { code?: string; message?: string } };
  return {
    code: error?.code ?? (status === 401 ? "unauthorized" : "refused"),
    message: error?.message ?? `status ${status}`,
    status,
    final: status < 500 && status !== 408 && status !== 429,
    complete: status === 204, // the stream that was to go on had been finished
    afterMs: Number(response.headers.get("Retry-After")) * 1000 || 0,
  };
}
