import { tooLarge } from "./intake.js";

/** Reads bytes as UTF-8, chunk by chunk; bytes that are none fail. */
export function readText(bytes: ReadableStream<Uint8Array>): ReadableStreamDefaultReader<string> {
  const decoder = new TextDecoderStream("utf-8", { fatal: true });
  return bytes.pipeThrough(decoder as ReadableWritablePair<string, Uint8Array>).getReader();
}

/**
 * Undoes base64 and gzip. A few bytes may hold gigabytes, so it stops once the text is longer than
 * `bytesMax`, and throws {@link tooLarge}; other errors say that the bytes are not what they should be.
 */
export async function inflate(base64: string, bytesMax: number): Promise<string> {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const reader = readText(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip")));
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return text;
    text += value;
    if (text.length > bytesMax) {
      await reader.cancel();
      throw tooLarge(bytesMax);
    }
  }
}
