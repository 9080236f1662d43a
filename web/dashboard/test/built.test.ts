// What stands in built/ is what the gateway serves, so it must be what the sources make.
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { expect, it } from "vitest";

const web = fileURLToPath(new URL("../../", import.meta.url));
const built = join(web, "dashboard/built");
const BYTES_MAX = 150 * 1024;

const filesOf = (folder: string) =>
  readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1))
    .sort();

it("built/ is what the sources make", { timeout: 120_000 }, () => {
  const fresh = mkdtempSync(join(tmpdir(), "dashboard-"));
  try {
    const script = [
      "node_modules/vite/bin/vite.js",
      "build",
      "--config",
      "dashboard/vite.config.ts",
      "--logLevel",
      "warn",
    ];
    execFileSync(process.execPath, [...script, "--outDir", fresh], {
      cwd: web,
      env: { ...process.env, NODE_ENV: "production" },
    });
    const stale = filesOf(fresh).filter((name, index, all) => {
      const committed = filesOf(built);
      if (committed.length !== all.length || committed[index] !== name) return true;
      return !readFileSync(join(fresh, name)).equals(readFileSync(join(built, name)));
    });
    expect(stale, "web/dashboard/built is not what the sources make: run `make web` and commit it").toEqual([]);
  } finally {
    rmSync(fresh, { recursive: true });
  }
});

it("what is embedded keeps its size", () => {
  const size = filesOf(built).reduce(
    (sum, name) => sum + gzipSync(readFileSync(join(built, name)), { level: 9 }).byteLength,
    0,
  );
  console.log(`the pages: ${size} bytes gzipped, of ${BYTES_MAX}`);
  expect(size).toBeLessThan(BYTES_MAX);
});
