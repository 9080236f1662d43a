// Opens the gateway's own page in Chromium and does what a visitor would: node page.js CHROMIUM URL
// Says one line of JSON: what was seen on each wire, and everything the console complained of.
import { chromium } from "playwright-core";

const [executablePath, url] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
const page = await browser.newPage({ viewport: { width: 400, height: 860 } });
const complaints = [];
page.on("console", (message) => {
  if (message.type() === "error" || message.type() === "warning") complaints.push(message.text());
});
page.on("pageerror", (error) => complaints.push(error.message));
page.on("requestfailed", (request) => {
  // Switching wires ends the stream that was open: the page's own doing.
  if (!request.url().includes("/api/stream")) complaints.push(`${request.url()} failed`);
});

const seen = {};
await page.goto(url);
for (const wire of ["sse", "websocket"]) {
  await page.check(`input[value=${wire}]`);
  await page.waitForSelector(".state[data-state=live]");
  const before = Number((await page.textContent("#received")).replaceAll(",", ""));
  await page.waitForFunction((before) => Number(document.getElementById("received").textContent.replaceAll(",", "")) >= before + 3, before);
  await page.waitForFunction(() => document.querySelector("#events li.event .type")?.textContent === "measurement");
  seen[wire] = await page.textContent("#state-text");
}

// What is published in the form comes back over the open wire.
await page.fill("#channel", "job_progress:from_page");
await page.press("#channel", "Enter");
await page.waitForFunction(() => [...document.querySelectorAll("#events li.notice .type")].some((cell) => cell.textContent === "subscribed" && cell.closest("li").textContent.includes("from_page")));
await page.fill("#publish-channel", "job_progress:from_page");
await page.fill("#payload", '{"type":"hello_page","progress":0.25}');
await page.click("#publish button");
await page.waitForFunction(() => [...document.querySelectorAll("#events li.event .type")].some((cell) => cell.textContent === "hello_page"));
seen.published = await page.textContent("#published");
seen.overflow = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);

console.log(JSON.stringify({ seen, complaints }));
await browser.close();
