import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "vite";
import { expect, it } from "vitest";

/** What a page pays for `export *` of the entry, minified and gzipped, in bytes. */
async function weigh(entry: string, external: string[]): Promise<number> {
  const result = await build({
    configFile: false,
    logLevel: "silent",
    build: {
      write: false,
      target: "es2022",
      rolldownOptions: {
        input: fileURLToPath(new URL(entry, import.meta.url)),
        external,
        preserveEntrySignatures: "strict",
      },
    },
  });
  const [bundle] = Array.isArray(result) ? result : [result];
  if (!bundle || !("output" in bundle)) throw new Error("nothing was built");
  const code = bundle.output.map((chunk) => (chunk.type === "chunk" ? chunk.code : "")).join("");
  return gzipSync(code, { level: 9 }).byteLength;
}

// The client with all that it depends on; the hooks beside React and the client.
it.each([
  ["client", "client/src/index.ts", [], 8 * 1024],
  ["react", "react/src/index.ts", ["react", "@millrace/client"], 4 * 1024],
])("%s keeps its size", { timeout: 30_000 }, async (name, entry, external, bytesMax) => {
  const size = await weigh(entry, external);
  console.log(`${name}: ${size} bytes gzipped, of ${bytesMax}`);
  expect(size).toBeLessThan(bytesMax);
});
