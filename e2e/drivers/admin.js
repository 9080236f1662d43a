// Opens the operator's page in Chromium and does what an operator would about a client that does
// not read: node admin.js CHROMIUM URL CLIENT. Says one line of JSON: what was seen, and
// everything that was wrong: what the console complained of, what axe-core found, what moved, what was
// wider than its window.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const [executablePath, url, client] = process.argv.slice(2);
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
const sizes = { telephone: { width: 400, height: 860 }, desk: { width: 1440, height: 900 }, wall: { width: 3840, height: 2160 } };
const wrong = [];
const seen = {};

// Colours are a matter of the theme and what is shown is one of the size, so not each size is looked at
// in each theme: axe takes its time.
const looks = [["desk", "light"], ["desk", "dark"], ["telephone", "light"]];

async function examine(page, name) {
  for (const [size, viewport] of Object.entries(sizes)) {
    await page.setViewportSize(viewport);
    const wide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
    if (wide) wrong.push(`${name}, ${size}: the page is wider than its window`);
  }
  for (const [size, colorScheme] of looks) {
    await page.setViewportSize(sizes[size]);
    await page.emulateMedia({ colorScheme });
    await page.waitForFunction((theme) => document.documentElement.dataset.theme === theme, colorScheme);
    const { violations } = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
    for (const { id, nodes } of violations) {
      for (const node of nodes) wrong.push(`${name}, ${size}, ${colorScheme}: axe: ${id}: ${node.html.slice(0, 200)} ${node.failureSummary}`);
    }
  }
  await page.setViewportSize(sizes.desk);
}

const page = await browser.newPage({ viewport: sizes.desk, reducedMotion: "reduce" });
page.setDefaultTimeout(120_000); // a busy machine: nothing waits so long where things work
page.on("console", (message) => {
  if (message.type() === "error" || message.type() === "warning") wrong.push(`console: ${message.text()} ${message.location().url}`);
});
page.on("pageerror", (error) => wrong.push(`error: ${error.message}`));
await page.addInitScript(() => {
  globalThis.shifts = [];
  // A number at the right of its cell that gets a digit more, 9.98 s to 10.98 s, has not moved.
  const grew = ({ previousRect: before, currentRect: now }) => before.y === now.y && Math.abs(before.right - now.right) < 1;
  new PerformanceObserver((list) => {
    for (const { hadRecentInput, sources } of list.getEntries()) {
      const moved = sources.filter((source) => !grew(source));
      if (!hadRecentInput) for (const { node } of moved) shifts.push((node?.parentElement ?? node)?.outerHTML.slice(0, 200));
    }
  }).observe({ type: "layout-shift", buffered: true });
});

// The page comes up, and lists the client.
await page.goto(url);
await page.evaluate(axe);
await page.getByRole("button", { name: `Explain ${client}` }).waitFor();
seen.standing = await page.locator(".standing .pill").textContent();
seen.row = await page.getByRole("row").filter({ hasText: client }).innerText();
// What is counted changes a few times before it is said that nothing moves.
const time = () => page.locator(".standing-time").textContent();
for (let look = 0; look < 3; look++) {
  const before = await time();
  await page.waitForFunction((before) => document.querySelector(".standing-time").textContent !== before, before);
}
seen.shifts = await page.evaluate(() => shifts);
seen.address = page.url();
await examine(page, "page");

// By the keyboard alone: the client is explained, and the explanation closed again.
await page.getByRole("button", { name: `Explain ${client}` }).focus();
await page.keyboard.press("Enter");
const explanation = page.getByRole("dialog", { name: `Stream ${client}` });
await explanation.getByText("Not acknowledged").waitFor();
seen.explanation = await explanation.innerText();
await examine(page, "explain");
await page.keyboard.press("Escape");
await explanation.waitFor({ state: "detached" });
seen.focus = await page.evaluate(() => document.activeElement?.getAttribute("aria-label"));

// It is found by its user.
await page.getByRole("searchbox").fill("456");
await page.keyboard.press("Enter");
await page.getByRole("heading", { name: "Streams of 456" }).waitFor();
await page.getByRole("button", { name: `Explain ${client}` }).click();

// A channel is taken from it, and it is disconnected; each after one Cancel that does nothing.
await explanation.getByRole("button", { name: "Unsubscribe from events:2" }).click();
const question = page.getByRole("dialog", { name: /\?$/ });
await question.getByRole("button", { name: "Cancel" }).click();
await question.waitFor({ state: "detached" });
await explanation.getByRole("button", { name: "Unsubscribe from events:2" }).click();
await question.getByRole("button", { name: "Unsubscribe" }).click();
await explanation.getByText("events:2 was taken from 1 stream.").waitFor();
await explanation.getByRole("button", { name: "Unsubscribe from events:2" }).waitFor({ state: "detached" });
await explanation.getByRole("button", { name: "Disconnect", exact: true }).click();
seen.question = await question.innerText();
await examine(page, "confirm");
await question.getByRole("button", { name: "Disconnect", exact: true }).click();
await explanation.getByText("1 stream disconnected.").waitFor();
await explanation.getByText("The stream has ended.").waitFor();
// The 404 by which the page learns that is Chromium's to complain of.
const expected = wrong.findIndex((line) => line.startsWith("console:") && line.includes("404") && line.includes("/api/admin/explain"));
if (expected >= 0) wrong.splice(expected, 1);
await explanation.getByRole("button", { name: "Close" }).click();
await page.getByText("Nothing is called 456 here").waitFor();
await page.getByRole("button", { name: "Clear" }).click();
await page.getByText("Every client keeps up").waitFor();
await examine(page, "empty");

console.log(JSON.stringify({ seen, wrong }));
await browser.close();
