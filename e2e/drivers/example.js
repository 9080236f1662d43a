// Opens the page of examples/react, as it was built: node example.js CHROMIUM BASE FOLDER
// Says {"kind":"shown","data":TEXT} for each text that the page shows, and answers every line of input
// with {"kind":"counts","data":{"texts":N,"frames":N}}, counted since the line before.
import { readFile } from "node:fs/promises";
import { extname, join } from "node:path";
import { chromium } from "playwright-core";
import { obey, say } from "./lines.js";

const [executablePath, base, folder] = process.argv.slice(2);
const types = { ".html": "text/html", ".js": "text/javascript" };
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
// The page comes from this driver, not from the loopback address that it then connects to: Chromium asks.
const page = await browser.newPage({ permissions: ["local-network-access"] });
page.on("console", (message) => {
  if (message.type() === "error" || message.type() === "warning") say({ kind: "complaint", reason: message.text() });
});
page.on("pageerror", (error) => say({ kind: "complaint", reason: error.message }));
await page.exposeFunction("say", say);
await page.route("**/example/**", async (route) => {
  const path = new URL(route.request().url()).pathname.replace("/example/", "");
  await route.fulfill({ contentType: types[extname(path)], body: await readFile(join(folder, path)) });
});
await page.addInitScript(() => {
  globalThis.counts = { texts: 0, frames: 0 };
  const frame = () => {
    counts.frames++;
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
  addEventListener("DOMContentLoaded", () => {
    const root = document.getElementById("root");
    let shown;
    new MutationObserver(() => {
      counts.texts++;
      if (root.innerText !== shown) say({ kind: "shown", data: JSON.stringify(root.innerText) });
      shown = root.innerText;
    }).observe(root, { subtree: true, childList: true, characterData: true });
  });
});
await page.goto(`${base}/example/index.html`);

await obey(async () => {
  const counts = await page.evaluate(() => {
    const counted = globalThis.counts;
    globalThis.counts = { texts: 0, frames: 0 };
    return counted;
  });
  say({ kind: "counts", data: JSON.stringify(counts) });
});
await browser.close();
