import { act } from "react";
import { createRoot, type Root } from "react-dom/client";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { type Api, ApiError, type Stats, type StreamList } from "../src/admin/api.js";
import { Page } from "../src/admin/page.js";
import { explained, stalled, statsAt } from "./admin-stats.js";

// A canvas is the browser's, and the end-to-end tests draw on a real one.
vi.mock("../src/shared/line-chart.js", () => ({ LineChart: ({ label }: { label: string }) => <p>{label}</p> }));

// The clock is a fake one: what takes time here is the machine.
vi.setConfig({ testTimeout: 60_000 });

const none: StreamList = { streams: [], matched: 0, open: 5 };

let container: HTMLElement;
let root: Root;
let api: { [name in keyof Api]: ReturnType<typeof vi.fn<Api[name]>> };

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal("IS_REACT_ACT_ENVIRONMENT", true);
  api = {
    stats: vi.fn<Api["stats"]>(async () => statsAt(100)),
    streams: vi.fn<Api["streams"]>(async () => none),
    explain: vi.fn<Api["explain"]>(async () => explained),
    disconnect: vi.fn<Api["disconnect"]>(async () => 1),
    unsubscribe: vi.fn<Api["unsubscribe"]>(async () => 1),
  };
  container = document.body.appendChild(document.createElement("div"));
  root = createRoot(container);
});

afterEach(async () => {
  await act(() => root.unmount());
  container.remove();
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

const pass = (milliseconds: number) => act(() => vi.advanceTimersByTimeAsync(milliseconds));

const open = () =>
  act(async () => {
    root.render(<Page api={api} />);
    await vi.advanceTimersByTimeAsync(0);
  });

function button(name: string): HTMLButtonElement {
  const found = [...container.querySelectorAll("button")].find(
    (one) => (one.getAttribute("aria-label") ?? one.textContent) === name,
  );
  if (!found) throw new Error(`there is no button ${name}`);
  return found;
}

const press = (name: string) =>
  act(async () => {
    button(name).click();
    await vi.advanceTimersByTimeAsync(0);
  });

const pill = () => container.querySelector(".standing .pill")?.textContent;

describe("the operator's page", () => {
  it("shows places before there are numbers, and the same ones after", async () => {
    let answer = (_: Stats) => {};
    api.stats.mockReturnValue(new Promise((resolve) => (answer = resolve)));
    await open();
    expect(pill()).toBe("Connecting");
    const before = [...container.querySelectorAll("dt, caption, h2")].map((one) => one.textContent);
    answer(statsAt(100));
    await pass(0);
    expect(pill()).toBe("Healthy");
    expect([...container.querySelectorAll("dt, caption, h2")].map((one) => one.textContent)).toEqual(before);
  });

  it("says why it is kept out, and asks no more until it is told to", async () => {
    api.stats.mockRejectedValue(new ApiError(403, "access_denied", "for loopback peers"));
    await open();
    await pass(10_000);
    expect(container.textContent).toContain("The gateway does not let you in");
    expect(container.textContent).toContain("for loopback peers");
    expect(api.stats).toHaveBeenCalledOnce();
    expect(api.streams).toHaveBeenCalledTimes(1);
    api.stats.mockResolvedValue(statsAt(100));
    await press("Try again");
    expect(pill()).toBe("Healthy");
  });

  it("keeps what it showed while nobody answers", async () => {
    await open();
    api.stats.mockRejectedValue(new TypeError("Failed to fetch"));
    await pass(1_000);
    expect(pill()).toBe("No answer");
    expect(container.querySelector(".standing")?.textContent).toContain("What you see is from before");
    expect(container.querySelector(".headline-value")?.textContent).toBe("5");
    vi.stubGlobal("navigator", { onLine: false });
    await pass(1_000);
    expect(pill()).toBe("Offline");
  });

  it.each(["degraded", "draining"] as const)("says that the gateway is %s, and once to who listens", async (status) => {
    await open();
    api.stats.mockResolvedValue(statsAt(101, (stats) => Object.assign(stats, { status })));
    await pass(1_000);
    expect(pill()?.toLowerCase()).toBe(status);
    expect(container.querySelector(".standing [role=status]")?.textContent?.toLowerCase()).toContain(status);
  });

  it("does not tell who listens how the seconds pass", async () => {
    await open();
    const said = container.querySelector(".standing [role=status]");
    const before = said?.textContent;
    api.stats.mockResolvedValue(statsAt(161));
    await pass(1_000);
    expect(container.querySelector(".standing-text")?.textContent).toContain("2 min 41 s");
    expect(said?.textContent).toBe(before);
  });

  it("lists slow clients, or all that are not live, or what it is asked for", async () => {
    api.streams.mockImplementation(async (query) =>
      query["slow"] ? { streams: [stalled], matched: 400, open: 900 } : none,
    );
    await open();
    expect(container.querySelector(".streams")?.textContent).toContain("the worst 1 of 400, out of 900 open");
    await act(async () => {
      container.querySelectorAll<HTMLInputElement>("fieldset input")[1]?.click();
      await vi.advanceTimersByTimeAsync(0);
    });
    expect(api.streams).toHaveBeenLastCalledWith({}, expect.anything());
    expect(container.textContent).toContain("Every client keeps up");
  });

  it("explains a stream until it has ended", async () => {
    api.streams.mockResolvedValue({ streams: [stalled], matched: 1, open: 5 });
    await open();
    await press("Explain life-1");
    const dialog = container.querySelector("dialog");
    expect(dialog?.open).toBe(true);
    expect(dialog?.textContent).toContain("It stands still");
    api.explain.mockRejectedValue(new ApiError(404, "not_found", "no such client"));
    await pass(1_000);
    expect(dialog?.textContent).toContain("The stream has ended.");
    expect(button("Disconnect").disabled).toBe(true);
    await press("Close");
    expect(container.querySelector("dialog")).toBeNull();
  });

  it("does nothing that was not confirmed, and says what it did or could not do", async () => {
    api.streams.mockResolvedValue({ streams: [stalled], matched: 1, open: 5 });
    await open();
    await press("Explain life-1");
    await press("Disconnect all of 456");
    await press("Cancel");
    expect(api.disconnect).not.toHaveBeenCalled();
    await press("Unsubscribe from events:1");
    api.unsubscribe.mockRejectedValueOnce(new ApiError(503, "overloaded", "a loop does not answer"));
    await press("Unsubscribe");
    expect(container.textContent).toContain("It was not done: a loop does not answer");
    await press("Unsubscribe");
    expect(api.unsubscribe).toHaveBeenLastCalledWith({ client: "life-1" }, "events:1");
    expect(container.textContent).toContain("events:1 was taken from 1 stream.");
    await press("Disconnect all of 456");
    api.disconnect.mockResolvedValueOnce(3);
    await act(async () => {
      container.querySelector<HTMLButtonElement>(".confirm .danger")?.click();
      await vi.advanceTimersByTimeAsync(0);
    });
    expect(api.disconnect).toHaveBeenCalledExactlyOnceWith({ user: "456" });
    expect(container.textContent).toContain("3 streams disconnected here; the other gateways know.");
  });
});
