import { createRoot, type Root } from "react-dom/client";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { createLive, LiveContext } from "../src/model/live.js";
import { CouncilView } from "../src/views/council.js";
import { type CouncilGateway, END, GREETING, startCouncilGateway } from "./council-gateway.js";

let gateway: CouncilGateway;
let container: HTMLElement;
let root: Root;

beforeEach(async () => {
  gateway = await startCouncilGateway();
  const { fetch } = globalThis;
  vi.stubGlobal("fetch", (address: string, options: RequestInit) => {
    const { pathname, search } = new URL(address, location.href);
    return fetch(`${gateway.url}${pathname}${search}`, options);
  });
  location.hash = "#/council";
  sessionStorage.clear();
  container = document.body.appendChild(document.createElement("div"));
  await show({ userId: "456", token: undefined });
});

afterEach(async () => {
  root.unmount();
  container.remove();
  await gateway.close();
  vi.unstubAllGlobals();
});

async function show(account: { userId: string | undefined; token: string | undefined }): Promise<void> {
  root = createRoot(container);
  const live = createLive(account);
  root.render(
    <LiveContext value={live}>
      <CouncilView />
    </LiveContext>,
  );
  await eventually(() => expect(container.querySelector("textarea")).not.toBeNull());
}

const eventually = (hold: () => void) => vi.waitFor(hold, { timeout: 10_000, interval: 10 });

const text = () => container.textContent ?? "";

/** Waits until the page shows it: the streams are real, so is their time. */
async function shows(part: string): Promise<void> {
  await eventually(() => expect(text()).toContain(part));
}

function press(label: string): void {
  const button = [...container.querySelectorAll("button")].find((one) => one.textContent === label);
  if (!button) throw new Error(`there is no button ${label}`);
  button.click();
}

async function write(prompt: string): Promise<void> {
  const area = container.querySelector("textarea");
  if (!area) throw new Error("there is no text to write");
  // React hears of a value only where the element's own setter was used.
  Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, "value")?.set?.call(area, prompt);
  area.dispatchEvent(new Event("input", { bubbles: true }));
  await eventually(() => expect(container.querySelector<HTMLButtonElement>("button.primary")?.disabled).toBe(false));
}

async function evaluate(prompt: string): Promise<void> {
  await write(prompt);
  press("Evaluate");
  await shows("In session");
  await eventually(() => expect(gateway.listeners()).toBe(1));
}

describe("the council", () => {
  it("fills its columns as the models speak, and ends with a verdict", async () => {
    await evaluate("A headline");
    expect(gateway.asked).toEqual([
      'POST /api/stream/council-score?userId=456 {"prompt":"A headline"}',
      "GET /api/stream/council-score?id=council+1&userId=456",
    ]);
    expect(location.hash).toBe("#/council/council%201");
    gateway.say("", { model: "gemini", chunk: "Analyzing" });
    gateway.say("", { model: "gemini", chunk: " … strong" });
    await shows("Analyzing … strong");
    gateway.say("", { model: "gemini", score: 0.78, reason: "It is short." });
    await shows("Gemini says 0.78");
    await shows("It is short.");
    gateway.say("complete", END);
    await shows("Finished");
    await shows("Claude failed: no answer");
    expect(container.querySelector(".verdict")?.textContent).toContain("Mean0.78Spread0.10");
    expect(container.querySelector(".seat")?.textContent).toContain("1.23 s");
    expect(gateway.asked).toHaveLength(2); // nobody comes back to a stream that is complete
  });

  it("goes on where it was when the connection is cut", async () => {
    await evaluate("A headline");
    gateway.say("", { model: "gemini", chunk: "one " });
    await shows("one");
    gateway.cut();
    gateway.say("", { model: "gemini", chunk: "two" });
    await shows("one two");
    expect(text()).not.toContain("one one");
  });

  it("goes on by its id after a reload", async () => {
    await evaluate("A headline");
    gateway.say("", { model: "gemini", chunk: "one" });
    await shows("one");
    root.unmount();
    gateway.say("", { model: "gemini", chunk: " two" });
    await show({ userId: "456", token: undefined });
    await shows("one two");
    expect(container.querySelector("textarea")?.value).toBe("A headline");
  });

  it("is cancelled for all, and asked again", async () => {
    await evaluate("A headline");
    press("Cancel");
    await shows("Cancelled");
    expect(gateway.asked.at(-1)).toBe("DELETE /api/stream/council-score?id=council+1&userId=456");
    await eventually(() => expect(gateway.listeners()).toBe(0));
    press("Ask again");
    await eventually(() => expect(gateway.asked.filter((one) => one.startsWith("POST"))).toHaveLength(2));
  });

  it("says so where the built-in scorers speak", async () => {
    GREETING.demo = true;
    try {
      await evaluate("A headline");
      await shows("no model is configured");
    } finally {
      GREETING.demo = false;
    }
  });

  it.each([
    [404, "not_found", {}, "This gateway has no council."],
    [401, "unauthorized", {}, "The council asks for a token."],
    [429, "rate_limited", { "Retry-After": "7" }, "refused: rate_limited. Try again in 7 s."],
  ] as const)("says why it could not be had: %i", async (status, code, headers, message) => {
    gateway.refuseNext(status, code, headers);
    await write("A headline");
    press("Evaluate");
    await shows(message);
    expect(location.hash).toBe("#/council");
  });

  it("says so when nobody remembers it", async () => {
    root.unmount();
    location.hash = "#/council/gone";
    gateway.refuseNext(404, "not_found");
    await show({ userId: undefined, token: "secret" });
    await shows("It is over, and nobody remembers it.");
  });
});
