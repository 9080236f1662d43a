// Builds the two pages into built/, which is committed and embedded in the gateway (web/web.go):
// `make web`. The output depends on the sources alone, and file names carry no hash: the gateway
// serves each with an ETag of its content, and a test compares the folder byte for byte.
import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));
const gateway = process.env["GATEWAY"] ?? "http://127.0.0.1:8080";

export default defineConfig({
  root: here("."),
  base: "/page/",
  resolve: {
    alias: [{ find: /^@millrace\/(client|react)$/, replacement: here("../$1/src/index.ts") }],
  },
  oxc: { jsx: { runtime: "automatic" } },
  build: {
    outDir: here("built"),
    emptyOutDir: true,
    target: "es2022",
    // The Content-Security-Policy allows files of the gateway's own, and nothing inline.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rolldownOptions: {
      // How long a plugin took is no fault of a build on a busy machine.
      checks: { pluginTimings: false },
      input: { dashboard: here("index.html"), admin: here("admin.html") },
      output: {
        entryFileNames: "assets/[name].js",
        chunkFileNames: "assets/[name].js",
        assetFileNames: "assets/[name][extname]",
        // What both pages need, in one file: the second page of a visit has it already.
        codeSplitting: {
          groups: [{ name: "shared", test: /node_modules|web\/(client|react)\/src|dashboard\/src\/shared/ }],
        },
      },
    },
  },
  // `npm --prefix web run dashboard:dev`: the pages with hot reload, on a gateway that runs already.
  server: {
    proxy: {
      "/api": gateway,
      "/metrics": gateway,
      "/ws": { target: gateway.replace(/^http/, "ws"), ws: true },
    },
  },
});
