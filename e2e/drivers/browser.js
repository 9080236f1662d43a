// Chromium as a client: node browser.js CHROMIUM eventsource|websocket BASE PATH [NAME...]
import { chromium } from "playwright-core";
import { obey, say } from "./lines.js";
import { act, openEventSource, openWebSocket, protocol } from "./page.js";

const [executablePath, wire, base, path, ...names] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
// A proxy under test has a certificate that the test made.
const page = await browser.newPage({ ignoreHTTPSErrors: true });
await page.exposeFunction("say", say);
// Any document of the gateway's origin will do: streams are opened from it as a page would.
await page.goto(`${base}/healthz`);
if (wire === "eventsource") {
  await page.evaluate(openEventSource, [path, names, await page.evaluate(protocol)]);
} else {
  await page.evaluate(openWebSocket, path);
}
await obey(({ send, close }) => page.evaluate(act, [send, close]));
await browser.close();
