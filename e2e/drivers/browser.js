// Chromium as a client: node browser.js CHROMIUM eventsource|websocket BASE PATH [NAME...]
// EventSource hands over only the event names it was asked for: they are the NAMEs.
import { chromium } from "playwright-core";
import { obey, say } from "./lines.js";

const [executablePath, wire, base, path, ...names] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
// A proxy under test has a certificate that the test made.
const page = await browser.newPage({ ignoreHTTPSErrors: true });
await page.exposeFunction("say", say);
// Any document of the gateway's origin will do: streams are opened from it as a page would.
await page.goto(`${base}/healthz`);
const protocol = await page.evaluate(() => performance.getEntriesByType("navigation")[0].nextHopProtocol);

if (wire === "eventsource") {
  await page.evaluate(([path, names, protocol]) => {
    const source = new EventSource(path);
    source.onopen = () => say({ kind: "open", reason: protocol });
    source.onerror = () => say({ kind: "error", reason: source.readyState === 2 ? "closed" : "connecting" });
    for (const name of names) {
      source.addEventListener(name, (event) => say({ kind: "event", event: name, id: event.lastEventId, data: event.data }));
    }
  }, [path, names, protocol]);
} else {
  await page.evaluate((path) => {
    const url = new URL(path, location.href);
    url.protocol = url.protocol.replace("http", "ws");
    globalThis.socket = new WebSocket(url);
    socket.onopen = () => say({ kind: "open" });
    socket.onmessage = (event) => say({ kind: "message", data: event.data });
    socket.onclose = (event) => say({ kind: "close", code: event.code, reason: event.reason });
  }, path);
}

await obey(({ send, close }) =>
  page.evaluate(([send, close]) => (close ? socket.close() : socket.send(send)), [send, close]));
await browser.close();
