// What Chromium's EventSource makes of event streams: node rules.js CHROMIUM BASE COUNT [NAME...]
// It opens BASE/0 to BASE/COUNT-1, all at once, and lets each come back until it is told to stop for
// good (204). Then it says, for each, what was handed over under the NAMEs, as one line of JSON.
import { chromium } from "playwright-core";
import { say } from "./lines.js";

const [executablePath, base, count, ...names] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
const page = await browser.newPage();
await page.goto(`${base}/`);
const heard = await page.evaluate(([count, names]) => {
  const one = (number) => new Promise((resolve) => {
    const events = [];
    const source = new EventSource(`/${number}`);
    for (const name of names) {
      source.addEventListener(name, (event) => events.push({ event: event.type, id: event.lastEventId, data: event.data }));
    }
    source.onerror = () => source.readyState === EventSource.CLOSED && resolve(events);
  });
  return Promise.all(Array.from({ length: count }, (_, number) => one(number)));
}, [Number(count), names]);
for (const events of heard) say({ kind: "stream", data: JSON.stringify(events) });
await browser.close();
