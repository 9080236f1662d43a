// Takes the pictures of the operator's page: node screenshots-admin.js CHROMIUM MILLRACE FOLDER
// It starts a gateway of its own, gives it streams, some events a second, and a few clients that do
// not read.
import { spawn } from "node:child_process";
import { connect, createServer } from "node:net";
import { join } from "node:path";
import { chromium } from "playwright-core";
import WebSocket from "ws";

const [executablePath, millrace, folder] = process.argv.slice(2);
const WATCHED_MS = 40_000;
const after = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const port = await new Promise((resolve) => {
  const server = createServer().listen(0, "127.0.0.1", () => {
    const { port } = server.address();
    server.close(() => resolve(port));
  });
});
const address = `127.0.0.1:${port}`;
const gateway = spawn(millrace, ["serve", "--listen", address, "--max-queue-bytes", "256KiB", "--progress-timeout", "10m"], { stdio: ["ignore", "ignore", "inherit"] });

async function publish(channel, event) {
  const body = JSON.stringify({ channel, event });
  const answer = await fetch(`http://${address}/api/publish`, { method: "POST", headers: { "Content-Type": "application/json" }, body });
  if (!answer.ok) throw new Error(`publish answered ${answer.status}`);
}

async function until(what, done) {
  for (let tries = 0; tries < 600; tries++) {
    if (await done().catch(() => false)) return;
    await after(50);
  }
  throw new Error(`${what}: not within 30 s`);
}

const stream = (channel, user) => {
  const socket = connect(port, "127.0.0.1");
  socket.write(`GET /api/stream?channel=${channel}&userId=${user} HTTP/1.1\r\nHost: ${address}\r\n\r\n`);
  return socket;
};

try {
  await until("the gateway is ready", async () => (await fetch(`http://${address}/readyz`)).ok);
  const stalled = ["456", "457", "mobile-31"].map((user) => stream("news:all", user).pause());
  await until("they are slow", async () => {
    await publish("news:all", { type: "news", text: "x".repeat(64 << 10) });
    const { matched } = await (await fetch(`http://${address}/api/admin/streams?slow=1`)).json();
    return matched === stalled.length;
  });
  const sockets = [];
  const more = (n) => {
    sockets.push(stream("job_progress:job_512", `viewer-${n}`).resume());
    if (n % 2) sockets.push(new WebSocket(`ws://${address}/ws?userId=viewer-${n}&channel=job_progress:job_512`));
  };
  for (let n = 0; n < 80; n++) more(n);
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
  const pages = new Map();
  for (const theme of ["light", "dark"]) {
    const page = await browser.newPage({ viewport: { width: 1180, height: 820 }, colorScheme: theme });
    await page.goto(`http://${address}/admin`);
    pages.set(theme, page);
  }
  let photographed = false;
  const working = (async () => {
    for (let n = 0; !photographed; n++) {
      await publish("job_progress:job_512", { type: "job_progress", frame: n, timestamp: new Date().toISOString() });
      if (n % 10 === 0) more(80 + n / 10);
      await after(60 + 40 * Math.sin(n / 40));
    }
  })();
  await after(WATCHED_MS);
  for (const [theme, page] of pages) {
    await page.bringToFront();
    await page.getByRole("button", { name: /^Explain/ }).first().waitFor();
    await after(2_500); // a page that was behind another one asks again
    await page.screenshot({ path: join(folder, `admin-${theme}.png`) });
    await page.getByRole("button", { name: /^Explain/ }).first().click();
    await page.getByText("Not acknowledged").waitFor();
    await page.screenshot({ path: join(folder, `explain-${theme}.png`) });
    await page.close();
  }
  photographed = true;
  await working;
  await browser.close();
} finally {
  gateway.kill();
}
process.exit(0); // whatever sockets are left
