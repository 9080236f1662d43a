// Watches the operator's page in Chromium: node admin-watch.js CHROMIUM URL. In, one line each:
// {"see":WORD} waits until the page says that the gateway stands so. Out: {"kind":"seen","data":TEXT},
// with all that the line says.
import { chromium } from "playwright-core";
import { obey, say } from "./lines.js";

const [executablePath, url] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
const page = await browser.newPage();
page.setDefaultTimeout(120_000);
await page.goto(url);
await obey(async ({ see }) => {
  await page.locator(".standing .pill", { hasText: see }).waitFor();
  say({ kind: "seen", data: await page.locator(".standing-text").textContent() });
});
await browser.close();
