// Firefox as a client: node firefox.js FIREFOX eventsource|websocket BASE PATH [NAME...]
// It is driven by WebDriver BiDi, which it speaks itself.
import { spawn } from "node:child_process";
import { rmSync } from "node:fs";
import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import WebSocket from "ws";
import { obey, say } from "./lines.js";
import { act, openEventSource, openWebSocket, protocol } from "./page.js";

const [program, wire, base, path, ...names] = process.argv.slice(2);
const profile = await mkdtemp(join(tmpdir(), "firefox-"));
// What Firefox shows of JSON is a page of its own, not of the gateway's origin.
await writeFile(join(profile, "user.js"), 'user_pref("devtools.jsonview.enabled", false);\n');
const firefox = spawn(program, ["--headless", "--no-remote", "--profile", profile, "--remote-debugging-port", "0"], {
  stdio: ["ignore", "ignore", "pipe"],
  env: { ...process.env, HOME: profile },
});
const ended = new Promise((resolve) => firefox.on("exit", resolve));
process.on("exit", () => {
  firefox.kill("SIGKILL");
  rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
});

const address = await new Promise((resolve, reject) => {
  firefox.on("exit", () => reject(new Error("Firefox ended")));
  createInterface({ input: firefox.stderr }).on("line", (line) => {
    const [, found] = /BiDi listening on (ws:\S+)/.exec(line) ?? [];
    if (found) resolve(found);
  });
});
const control = new WebSocket(`${address}/session`);
await new Promise((resolve, reject) => control.on("open", resolve).on("error", reject));

const asked = new Map();
control.on("message", (text) => {
  const message = JSON.parse(text);
  if (message.method === "script.message") say(JSON.parse(message.params.data.value));
  const answer = asked.get(message.id);
  asked.delete(message.id);
  if (message.type === "error") answer?.reject(new Error(message.message));
  else answer?.resolve(message.result);
});

let last = 0;
function ask(method, params) {
  return new Promise((resolve, reject) => {
    asked.set(++last, { resolve, reject });
    control.send(JSON.stringify({ id: last, method, params }));
  });
}

await ask("session.new", { capabilities: {} });
say({ kind: "started" });
await ask("session.subscribe", { events: ["script.message"] });
const { contexts } = await ask("browsingContext.getTree", {});
const context = contexts[0].context;
// Any document of the gateway's origin will do: streams are opened from it as a page would.
await ask("browsingContext.navigate", { context, url: `${base}/healthz`, wait: "complete" });

// evaluate calls a function in the page. Arguments go as JSON, and so does what it gives.
async function evaluate(call, argument) {
  const { result, exceptionDetails } = await ask("script.callFunction", {
    functionDeclaration: `(argument) => JSON.stringify((${call})(JSON.parse(argument)) ?? null)`,
    arguments: [{ type: "string", value: JSON.stringify(argument ?? null) }],
    target: { context },
    awaitPromise: true,
  });
  if (exceptionDetails) throw new Error(exceptionDetails.text);
  return JSON.parse(result.value);
}

await ask("script.callFunction", {
  functionDeclaration: "(channel) => { globalThis.say = (message) => channel(JSON.stringify(message)); }",
  arguments: [{ type: "channel", value: { channel: "say" } }],
  target: { context },
  awaitPromise: false,
});
if (wire === "eventsource") {
  await evaluate(openEventSource, [path, names, await evaluate(protocol)]);
} else {
  await evaluate(openWebSocket, path);
}
await obey(({ send, close }) => evaluate(act, [send, close]));
control.terminate();
firefox.kill("SIGKILL"); // nothing of its profile is to be kept
await ended;
