// Comes to the operator's page in Chromium as if through a proxy, by one way after another:
// node admin-door.js CHROMIUM URL USER_TOKEN ADMIN_TOKEN. Says one line of JSON: by way, the status of
// the page's answer, how the page says that the gateway stands, and the address that is left.
import { chromium } from "playwright-core";

const [executablePath, url, user, admin] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
const ways = {
  nobody: {},
  user: { cookie: user },
  userInTheAddress: { query: user },
  admin: { cookie: admin },
  adminInTheAddress: { query: admin },
};
const found = {};
for (const [name, { cookie, query }] of Object.entries(ways)) {
  const context = await browser.newContext({ extraHTTPHeaders: { "X-Forwarded-For": "203.0.113.5" } });
  if (cookie) await context.addCookies([{ name: "millrace_token", value: cookie, url, sameSite: "Strict" }]);
  const page = await context.newPage();
  page.setDefaultTimeout(120_000);
  const answer = await page.goto(query ? `${url}?token=${query}` : url);
  found[name] = { status: answer.status() };
  if (answer.ok()) {
    // The list is there, so both the statistics and the admin API let the page in.
    await page.getByText("Every client keeps up").waitFor();
    await page.locator(".standing .pill[data-tone=good]").waitFor();
    found[name].standing = await page.locator(".standing .pill").textContent();
    found[name].address = page.url();
  }
  await context.close();
}
console.log(JSON.stringify(found));
await browser.close();
