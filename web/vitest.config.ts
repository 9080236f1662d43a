import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

const source = (name: string) => fileURLToPath(new URL(`${name}/src/index.ts`, import.meta.url));

export default defineConfig({
  // Hooks and pages are tested on the sources of what they use, not on what was last built.
  resolve: { alias: { "@millrace/client": source("client") } },
  oxc: { jsx: { runtime: "automatic" } },
  test: {
    projects: [
      { extends: true, test: { name: "size", include: ["size.test.ts"] } },
      { extends: true, test: { name: "client", include: ["client/test/*.test.ts"] } },
      { extends: true, test: { name: "react", include: ["react/test/*.test.tsx"], environment: "happy-dom" } },
      {
        extends: true,
        resolve: { alias: { "@millrace/react": source("react") } },
        test: {
          name: "dashboard",
          include: ["dashboard/test/*.test.{ts,tsx}"],
          exclude: ["dashboard/test/built.test.ts"],
          environment: fileURLToPath(new URL("dashboard/test/environment.ts", import.meta.url)),
        },
      },
      { extends: true, test: { name: "built", include: ["dashboard/test/built.test.ts"] } },
    ],
    restoreMocks: true,
    sequence: { shuffle: true },
  },
});
