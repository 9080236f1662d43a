import { createDecoder } from "./decode.js";
import { createIntake } from "./intake.js";
import { type End, LOST, type OpenWire } from "./wire.js";

/** A WebSocket. It always asks for envelopes, which say channel and id. */
export const openWebSocket: OpenWire = ({ page, url, token, bytesMax }, events) => {
  const { WebSocket } = page;
  if (!WebSocket) return undefined;
  const address = new URL(url);
  address.protocol = url.protocol.replace("http", "ws");
  address.searchParams.set("format", "envelope");
  const protocols = ["millrace.v1"];
  if (token !== undefined) protocols.push(`bearer.${token}`);
  const socket = new WebSocket(address.href, protocols);
  const { push, end, close } = createIntake(events, () => socket.close());
  const decoder = createDecoder(bytesMax);
  socket.onmessage = ({ data }: MessageEvent<string>) => push(() => decoder.envelope(data));
  socket.onclose = ({ code, reason }) => end(closed(code, reason));
  return { send: (text) => socket.send(text), close };
};

/**
 * After 1002, 1003, 1007 and 1009 another attempt would end the same way: a breach of the protocol,
 * or too long a message. 1008 is a matter of rights, and its reason is a code in plain words.
 */
function closed(closeCode: number, reason: string): End {
  const rights = closeCode === 1008;
  return {
    code: rights ? reason.toLowerCase().replace(" ", "_") : "lost",
    message: reason || `${LOST.message} (${closeCode})`,
    closeCode,
    final: rights || [1002, 1003, 1007, 1009].includes(closeCode),
  };
}
