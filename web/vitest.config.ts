import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

const client = fileURLToPath(new URL("client/src/index.ts", import.meta.url));

export default defineConfig({
  // The hooks are tested on the client's sources, not on what was last built.
  resolve: { alias: { "@millrace/client": client } },
  oxc: { jsx: { runtime: "automatic" } },
  test: {
    projects: [
      { extends: true, test: { name: "size", include: ["size.test.ts"] } },
      { extends: true, test: { name: "client", include: ["client/test/*.test.ts"] } },
      { extends: true, test: { name: "react", include: ["react/test/*.test.tsx"], environment: "happy-dom" } },
    ],
    restoreMocks: true,
    sequence: { shuffle: true },
  },
});
