// People who look at the gateway's dashboard, each in a browser context of their own:
// node dashboard.js CHROMIUM BASE
//
// In, one JSON object a line; "page" is a number of the test's choice:
//   {"page":N,"open":PATH,"token":T,"theme":"light|dark","width":W,"height":H}
//   {"page":N,"see":TEXT}        waits until the page shows it
//   {"page":N,"go":HASH}         another view, as its link does it
//   {"page":N,"press":NAME}      a button, by its name
//   {"page":N,"fill":LABEL,"text":TEXT}
//   {"page":N,"do":"offline|online|reload"}
//   {"page":N,"tell":SCRIPT}     the value of an expression
//   {"page":N,"judge":true}      how it looks: {"overflow":BOOLEAN,"violations":[TEXT]}
// Out: {"kind":"done","data":JSON} or {"kind":"error","reason":TEXT} for each, and in between
//   {"kind":"complaint","reason":TEXT} for whatever the console complained of.
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";
import { obey, say } from "./lines.js";

const PATIENCE_MS = 40_000;
const [executablePath, base] = process.argv.slice(2);
const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
const pages = new Map();

async function open({ page: number, open: path, token, theme = "light", width = 1280, height = 900 }) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: theme });
  context.setDefaultTimeout(PATIENCE_MS);
  if (token) await context.addInitScript((token) => sessionStorage.setItem("millrace.token", token), token);
  await context.addInitScript(() => {
    // What moved though nobody had touched anything, and when; steady() says what has since the last time.
    const shifts = [];
    let since = 0;
    new PerformanceObserver((list) => {
      for (const { hadRecentInput, sources, startTime } of list.getEntries()) {
        if (hadRecentInput) continue;
        for (const { node } of sources) shifts.push({ startTime, moved: (node?.parentElement ?? node)?.outerHTML.slice(0, 200) });
      }
    }).observe({ type: "layout-shift", buffered: true });
    globalThis.steady = async () => {
      // The frame that is being made counts to what was before.
      for (let frame = 0; frame < 3; frame++) await new Promise(requestAnimationFrame);
      const moved = shifts.filter(({ startTime }) => startTime > since).map(({ moved }) => moved);
      since = performance.now();
      return moved;
    };
  });
  await context.addInitScript(() => {
    // How often the page and its charts change: {texts, frames}, and the most draws of one chart in one frame.
    globalThis.counts = { texts: 0, frames: 0, draws: 0 };
    const drawn = new Map();
    const { clearRect } = CanvasRenderingContext2D.prototype;
    CanvasRenderingContext2D.prototype.clearRect = function (...area) {
      const draws = (drawn.get(this.canvas) ?? 0) + 1;
      drawn.set(this.canvas, draws);
      counts.draws = Math.max(counts.draws, draws);
      return clearRect.apply(this, area);
    };
    const frame = () => {
      counts.frames++;
      drawn.clear();
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
    addEventListener("DOMContentLoaded", () => {
      new MutationObserver(() => counts.texts++).observe(document.body, { subtree: true, childList: true, characterData: true });
    });
  });
  const page = await context.newPage();
  const complain = (reason) => say({ kind: "complaint", reason: `page ${number}: ${reason}` });
  page.on("console", (message) => {
    if (message.type() === "error" || message.type() === "warning") complain(message.text());
  });
  page.on("pageerror", (error) => complain(error.message));
  pages.set(number, page);
  await page.goto(base + path);
  await page.waitForSelector("main h1");
}

/** Everything that axe finds, in words. It is run from outside: the page's policy allows no scripts of others. */
async function judge(page) {
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
  await page.evaluate(axe);
  const violations = await page.evaluate(async () => {
    const { violations } = await globalThis.axe.run(document, { resultTypes: ["violations"] });
    return violations.flatMap(({ id, help, nodes }) =>
      nodes.map(({ target, failureSummary }) => `${id}: ${help}: ${target.join(" ")}: ${failureSummary}`));
  });
  return { overflow, violations };
}

const doings = {
  offline: (page) => page.context().setOffline(true),
  online: (page) => page.context().setOffline(false),
  reload: (page) => page.reload(),
};

async function take(command) {
  if ("open" in command) return open(command);
  const page = pages.get(command.page);
  if ("see" in command) {
    const wanted = command.see;
    return page.waitForFunction((wanted) => document.body.innerText.includes(wanted), wanted).catch(async (error) => {
      throw new Error(`${error.message}; it shows: ${await page.evaluate(() => document.body.innerText)}`);
    }).then(() => undefined);
  }
  if ("go" in command) {
    await page.locator(`nav a[href="${command.go}"]`).click();
    await page.locator(`nav a[href="${command.go}"][aria-current=page]`).waitFor();
    return undefined;
  }
  if ("press" in command) return page.getByRole("button", { name: command.press }).first().click();
  if ("fill" in command) return page.getByLabel(command.fill, { exact: true }).fill(command.text);
  if ("do" in command) return doings[command.do](page).then(() => undefined);
  if ("tell" in command) return page.evaluate(command.tell);
  return judge(page);
}

await obey(async (command) => {
  try {
    say({ kind: "done", data: JSON.stringify((await take(command)) ?? null) });
  } catch (error) {
    say({ kind: "error", reason: `${JSON.stringify(command)}: ${error.message}` });
  }
});
await browser.close();
