// Tabs of one browser, each with a stream of the package @millrace/client:
// node tabs.js CHROMIUM BASE CLIENT PARSER, the folders of the client's built files and of its dependency.
//
// In, one JSON object a line; "tab" is a number of the test's choice:
//   {"tab":N,"open":"websocket|fetch|eventsource","url":PATH,"options":{..}}   options.token is a text here
//   {"tab":N,"do":"close|freeze|thaw|pause|resume|leave|back|offline|online"}
// Out, beside the events of lines.js, each with its "tab":
//   {"kind":"status","reason":STATUS}   {"kind":"gap","event":CHANNEL,"reason":REASON}
//   {"kind":"done","reason":COMMAND}    {"kind":"complaint","reason":TEXT}
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { chromium } from "playwright-core";
import { obey, say } from "./lines.js";

const [executablePath, base, client, parser] = process.argv.slice(2);
const html = `<!doctype html><title>tab</title>
<script type="importmap">{"imports":{"eventsource-parser":"/parser/index.js"}}</script>`;

const browser = await chromium.launch({
  executablePath,
  args: ["--no-sandbox"],
  ignoreDefaultArgs: ["--disable-back-forward-cache"],
});
// The page comes from this driver, not from the loopback address that it then connects to: Chromium asks.
const context = await browser.newContext({ permissions: ["local-network-access"] });
const serve = (pattern, folder) =>
  context.route(pattern, async (route) => {
    const name = new URL(route.request().url()).pathname.split("/").pop();
    await route.fulfill({ contentType: "text/javascript", body: await readFile(join(folder, name)) });
  });
await serve("**/client/*.js", client);
await serve("**/parser/*.js", parser);
await context.route("**/tab.html", (route) => route.fulfill({ contentType: "text/html", body: html }));
await context.route("**/elsewhere.html", (route) => route.fulfill({ contentType: "text/html", body: "<title>elsewhere</title>" }));

/** Runs in the tab: opens the stream and tells what it hears. */
async function openStream({ wire, url, options, tab }) {
  const { sse, webSocket } = await import("/client/index.js");
  const { token, ...others } = options;
  const tell = (what) => say({ tab, ...what });
  const stream = (wire === "websocket" ? webSocket : sse)(url, {
    ...others,
    transport: wire === "eventsource" ? wire : "fetch",
    ...(token && { token: async () => token }),
    onMessage(message) {
      if (message.kind === "gap") tell({ kind: "gap", event: message.channel, reason: message.reason });
      else tell({ kind: "event", event: message.type, id: message.id, data: JSON.stringify(message.data), reason: message.channel });
    },
    onError: (error) => tell({ kind: "error", reason: `${error.code}: ${error.message}` }),
  });
  let status;
  stream.listen(() => {
    const now = stream.snapshot().status;
    if (now !== status) tell({ kind: "status", reason: now });
    status = now;
  });
}

const pages = new Map();

async function newTab(tab) {
  const page = await context.newPage();
  const session = await context.newCDPSession(page);
  page.on("pageerror", (error) => say({ kind: "complaint", tab, reason: error.message }));
  await page.exposeFunction("say", say);
  await page.goto(`${base}/tab.html`);
  pages.set(tab, { page, session });
  return page;
}

const acts = {
  close: ({ page }) => page.close(),
  // A headless Chromium freezes nothing, so the tab gets the event alone.
  freeze: ({ page }) => page.evaluate(() => document.dispatchEvent(new Event("freeze", { bubbles: true }))),
  thaw: ({ page }) => page.evaluate(() => document.dispatchEvent(new Event("resume", { bubbles: true }))),
  /** Stands still without a word, as a tab does that its system suspends. */
  async pause({ page, session }) {
    await session.send("Debugger.enable");
    const paused = new Promise((resolve) => session.once("Debugger.paused", resolve));
    await session.send("Debugger.pause");
    page.evaluate(() => 0).catch(() => {});
    await paused;
  },
  resume: ({ session }) => session.send("Debugger.disable"),
  leave: ({ page }) => page.goto(`${base}/elsewhere.html`),
  back: ({ page }) => page.goBack({ waitUntil: "commit" }),
  offline: () => context.setOffline(true),
  online: () => context.setOffline(false),
};

await obey(async ({ tab, open: wire, url, options, do: what }) => {
  if (wire) {
    const page = pages.get(tab)?.page ?? (await newTab(tab));
    await page.evaluate(openStream, { wire, url, options: options ?? {}, tab });
    return;
  }
  await acts[what](pages.get(tab));
  say({ kind: "done", tab, reason: what });
});
await browser.close();
