// Takes the pictures of the documentation: node screenshots.js CHROMIUM MILLRACE FOLDER
// It starts a gateway of its own, publishes an afternoon's events through its API, and ends it. What
// the council's models say is made up here, so that a picture needs no key.
import { spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const [executablePath, millrace, folder] = process.argv.slice(2);
const STEP_MS = 4_000;
const STEPS = 150;
const after = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function freePort() {
  return new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

const temporary = await mkdtemp(join(tmpdir(), "screenshots-"));
const config = join(temporary, "millrace.yaml");
await writeFile(config, `namespaces:
  jobs: {mode: state, access: public}
  campaign_metrics: {mode: state, access: public}
  job_progress: {mode: log, access: public}
`);
const address = `127.0.0.1:${await freePort()}`;
const gateway = spawn(millrace, ["serve", "--listen", address, "--config", config], { stdio: ["ignore", "ignore", "inherit"] });
const base = `http://${address}`;

async function ready() {
  for (let tries = 0; tries < 200; tries++) {
    const answer = await fetch(`${base}/readyz`).catch(() => undefined);
    if (answer?.ok) return;
    await after(50);
  }
  throw new Error("the gateway does not get ready");
}

async function publish(...events) {
  const body = JSON.stringify(events.map(([channel, event]) => ({ channel, event })));
  const answer = await fetch(`${base}/api/publish`, { method: "POST", headers: { "Content-Type": "application/json" }, body });
  if (!answer.ok) throw new Error(`publish answered ${answer.status}`);
}

/** The same numbers at each run. */
let seed = 7;
function chance() {
  seed = (seed * 48_271) % 2_147_483_647;
  return seed / 2_147_483_647;
}

function campaign(id, step, scale) {
  const day = Math.sin((step / STEPS) * 2 * Math.PI + scale);
  const impressions = Math.round(scale * 9_000 * (1.6 + day + 0.15 * chance()));
  const clicks = Math.round(impressions * (0.024 + 0.006 * Math.cos(step / 23 + scale) + 0.002 * chance()));
  const conversions = Math.round(clicks * (0.05 + 0.01 * chance()));
  const spend = clicks * (0.55 + 0.08 * chance());
  const revenue = conversions * (36 + 6 * chance());
  const timestamp = new Date(Date.now() - (STEPS - step) * STEP_MS).toISOString();
  return [`campaign_metrics:${id}`, { type: "campaign_metrics", campaignId: id, timestamp, impressions, clicks, conversions, spend, revenue }];
}

function job(id, status, progress, message, ago, more) {
  const timestamp = new Date(Date.now() - ago * 1000).toISOString();
  const frames = 1440;
  return [`job_progress:${id}`, { type: "job_progress", jobId: id, status, progress, message, timestamp, frame: Math.round(progress * frames), frames, ...more }];
}

function alert(id, severity, title, message, ago, metric, value, expected) {
  const timestamp = new Date(Date.now() - ago * 1000).toISOString();
  return ["alerts:456", { type: "alert", id, severity, title, message, timestamp, campaignId: "camp_456", metric, value, expected }];
}

async function afternoon() {
  await publish(
    ["jobs:index", { type: "index", ids: ["job_512", "job_511", "job_510", "job_509", "job_508"] }],
    ["campaign_metrics:index", { type: "index", ids: ["camp_123", "camp_456", "camp_789"] }],
  );
  await publish(
    job("job_508", "complete", 1, "Rendered 1440 frames", 410),
    job("job_509", "failed", 0.41, "Failed: the source ended early", 260),
    job("job_510", "complete", 1, "Rendered 1440 frames", 95),
    job("job_511", "processing", 0.64, "Rendering frame 922 of 1440", 18, { fps: 52.4, speed: 1.75 }),
    job("job_512", "queued", 0, "Waiting for a renderer", 4),
  );
  await publish(
    alert("a1", "info", "Half of the budget is spent", "By noon, as planned.", 1_900, "spend", 5_012, 5_000),
    alert("a2", "warning", "A click costs more than it should", "A third more than in the last hour.", 240, "cpc", 0.81, 0.6),
    alert("a3", "critical", "The campaign brings less than it costs", "ROAS fell below one five minutes ago.", 12, "roas", 0.84, 3.2),
  );
  for (let step = 0; step < STEPS; step++) {
    await publish(campaign("camp_123", step, 1), campaign("camp_456", step, 2.2), campaign("camp_789", step, 0.7));
    await after(25); // a state that changes faster is read less often
  }
}

const answers = {
  gemini: [0.78, "Concrete, active, and early.", "The line promises one thing and keeps it. The offer is concrete, the verb is active, and after seven words the reader knows what to do next. Its weakness is the second clause, which repeats the first."],
  claude: [0.84, "Clear; would gain from a number.", "Clear and short. I would test it against a version that names the price: readers of this kind decide by it. The tone fits, and nothing in it can be misread."],
  gpt: [0.61, "Strong opening, weak close.", "The opening earns the next line. The call to action comes late, and the last words are the weakest; swap the two halves."],
  perplexity: [0.7, "Above its category, below its best.", "Lines in this category lead with a number more often than not. This one is above their median for clarity and below it for urgency."],
};

function council() {
  const labels = { gemini: "Gemini", claude: "Claude", gpt: "GPT", perplexity: "Perplexity" };
  const models = Object.entries(labels).map(([model, label]) => ({ model, label }));
  const scores = Object.fromEntries(Object.entries(answers).map(([model, [score]]) => [model, score]));
  const said = Object.entries(answers).flatMap(([model, [score, reason, text]]) => [{ model, text }, { model, score, reason }]);
  const times = { gemini: 2.31, claude: 2.94, gpt: 3.4, perplexity: 4.12 };
  return [
    `event: connected\ndata: ${JSON.stringify({ type: "connected", councilId: "c1", models, demo: false })}\n\n`,
    ...said.map((one) => `data: ${JSON.stringify(one)}\n\n`),
    `id: c1/end\nevent: complete\ndata: ${JSON.stringify({ scores, mean: 0.73, spread: 0.23, times, errors: {} })}\n\n`,
  ].join("");
}

/** What is done on each view before its picture is taken. */
const views = {
  dashboard: (page) => page.getByText("camp_789").waitFor(),
  alerts: (page) => page.getByText("A click costs more than it should").waitFor(),
  async council(page) {
    await page.getByLabel("Text to judge").fill("A film of your product, in the time it takes to read this line.");
    await page.getByRole("button", { name: "Evaluate" }).click();
    await page.getByText("Finished").waitFor();
  },
  async streams(page) {
    await page.getByLabel("Channel to subscribe to").fill("campaign_metrics:camp_456");
    await page.getByRole("button", { name: "Subscribe" }).click();
    for (let n = 0; n < 4; n++) {
      await publish(campaign("camp_456", STEPS + n, 2.2));
      await after(500);
    }
  },
};

try {
  await ready();
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
  const pages = new Map();
  for (const theme of ["light", "dark"]) {
    const page = await browser.newPage({ viewport: { width: 1180, height: 720 }, colorScheme: theme });
    await page.route("**/api/stream/council-score*", (route) =>
      route.fulfill({ headers: { "Content-Type": "text/event-stream; charset=utf-8" }, body: council() }));
    await page.goto(`${base}/?userId=456`);
    await page.getByText("Live", { exact: true }).waitFor();
    pages.set(theme, page);
  }
  await afternoon();
  for (const [theme, page] of pages) {
    for (const [view, prepare] of Object.entries(views)) {
      await page.locator(`nav a[href="#/${view}"]`).click();
      await prepare(page);
      await page.evaluate(() => document.activeElement?.blur());
      await after(500); // the last frame is drawn
      await page.screenshot({ path: join(folder, `${view}-${theme}.png`) });
    }
  }
  await browser.close();
} finally {
  gateway.kill();
  await rm(temporary, { recursive: true });
}
