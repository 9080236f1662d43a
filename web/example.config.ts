// Builds examples/react with what stands in this repository; a reader's own project needs no such file.
import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

const gateway = process.env["GATEWAY"] ?? "http://127.0.0.1:8080";
const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

export default defineConfig({
  root: here("../examples/react"),
  // Wherever it is served: below a path, too.
  base: "./",
  resolve: {
    alias: [
      { find: /^@millrace\/(client|react)$/, replacement: here("$1/src/index.ts") },
      { find: /^(react|react-dom)(\/.*)?$/, replacement: here("node_modules/$1$2") },
    ],
  },
  cacheDir: here("node_modules/.vite"),
  oxc: { jsx: { runtime: "automatic" } },
  build: { outDir: here("../bin/examples/react"), emptyOutDir: true },
  // `npm --prefix web run example:dev`: the page with hot reload, on a gateway that runs already.
  server: { proxy: { "/ws": { target: gateway.replace(/^http/, "ws"), ws: true } } },
});
