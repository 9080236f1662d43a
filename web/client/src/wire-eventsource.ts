import { createDecoder, SSE_WORDS } from "./decode.js";
import { createIntake } from "./intake.js";
import { LOST, type OpenWire, resumeAddress } from "./wire.js";

/**
 * SSE by the browser's EventSource. It sends no headers, hands over only the event names that it was
 * asked for, and does not say why it was refused. Its own way of coming back is not used: it keeps
 * the token in its address for ever, and gives up after any status but 200.
 */
export const openEventSource: OpenWire = (request, events) => {
  const { page, token, lastEventId, options, bytesMax } = request;
  const { EventSource } = page;
  if (!EventSource) return undefined;
  const url = resumeAddress(request);
  if (lastEventId !== undefined) url.searchParams.set("lastEventId", lastEventId);
  if (options.tokenInQuery && token !== undefined) url.searchParams.set("token", token);
  const source = new EventSource(url.href, { withCredentials: !!options.withCredentials });
  const { push, end, close } = createIntake(events, () => source.close());
  const decoder = createDecoder(bytesMax);
  // lastEventId is sticky: an event that has no id of its own shows the one before.
  let lastId = "";
  const take = (event: MessageEvent<string>) => {
    const id = event.lastEventId === lastId ? undefined : event.lastEventId;
    lastId = event.lastEventId;
    push(() => decoder.sse(event.type, id, event.data));
  };
  for (const name of [...SSE_WORDS, ...(options.events ?? [])]) source.addEventListener(name, take);
  source.onerror = () => end(LOST);
  return { close };
};
