import { createParser } from "eventsource-parser";
import { type Account, authorization, withUser } from "../model/account.js";
import { fieldsOf, textIn } from "../model/fields.js";

export const COUNCIL = "/api/stream/council-score";

/** Why a council could not be had. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    /** In seconds, where the gateway says when to try again. */
    readonly after: number | undefined,
  ) {
    super(message);
  }
}

async function refusal(response: Response): Promise<Refused> {
  const { error } = fieldsOf(await response.json().catch(() => undefined));
  const { status, statusText } = response;
  const code = textIn(fieldsOf(error), "code") ?? "refused";
  const after = Number(response.headers.get("Retry-After")) || undefined;
  return new Refused(status, code, textIn(fieldsOf(error), "message") ?? `${status} ${statusText}`, after);
}

/** The id in the greeting of a stream, which is then let go of. */
async function greetedId(body: ReadableStream<Uint8Array>): Promise<string> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let id: string | undefined;
  const parser = createParser({
    onEvent({ event, data }) {
      if (event === "connected") id = textIn(fieldsOf(JSON.parse(data)), "councilId");
    },
  });
  while (id === undefined) {
    const { value, done } = await reader.read();
    if (done) throw new Error("the gateway ended the stream before it named the council");
    parser.feed(decoder.decode(value, { stream: true }));
  }
  // Whoever listens from here on is told everything so far: see CouncilRun.
  await reader.cancel();
  return id;
}

/**
 * Calls a council together and gives its id, by which any tab listens to it and a reload goes on. By
 * POST: a prompt may be longer than an address.
 */
export async function startCouncil(prompt: string, account: Account, signal: AbortSignal): Promise<string> {
  const response = await fetch(withUser(COUNCIL, account), {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "text/event-stream", ...authorization(account) },
    body: JSON.stringify({ prompt }),
    cache: "no-store",
    signal,
  });
  if (response.status !== 200 || !response.body) throw await refusal(response);
  return greetedId(response.body);
}

/** Ends a council for everybody who listens to it. */
export async function cancelCouncil(id: string, account: Account): Promise<void> {
  const response = await fetch(withUser(COUNCIL, account, { id }), {
    method: "DELETE",
    headers: authorization(account),
  });
  if (!response.ok && response.status !== 404) throw await refusal(response);
}
