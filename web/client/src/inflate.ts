import { tooLarge } from "./intake.js";

/**
 * Undoes base64 and gzip. A few bytes may hold gigabytes, so it stops once there are more than
 * `bytesMax`, and throws {@link tooLarge}; other errors say that the bytes are not what they should be.
 */
export async function inflate(base64: string, bytesMax: number): Promise<string> {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip")).getReader();
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let size = 0;
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return text + decoder.decode();
    size += value.byteLength;
    if (size > bytesMax) {
      await reader.cancel();
      throw tooLarge(bytesMax);
    }
    text += decoder.decode(value, { stream: true });
  }
}
