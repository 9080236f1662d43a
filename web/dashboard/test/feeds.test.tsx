import { MillraceDefaults } from "@millrace/react";
import { act } from "react";
import { createRoot, type Root } from "react-dom/client";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Browser, type Tab } from "../../client/test/browser.js";
import { Feeds } from "../src/feeds.js";
import { type Account, defaultsOf, withUser } from "../src/model/account.js";
import { createLive, type Live, LiveContext, readAlerts, useUser } from "../src/model/live.js";

let tab: Tab;
let root: Root;
let live: Live;
let user: string | undefined;

beforeEach(() => {
  vi.useFakeTimers({
    toFake: [
      "setTimeout",
      "clearTimeout",
      "setInterval",
      "clearInterval",
      "requestAnimationFrame",
      "cancelAnimationFrame",
      "Date",
    ],
  });
  vi.stubGlobal("IS_REACT_ACT_ENVIRONMENT", true);
  localStorage.clear();
  tab = new Browser().tab();
});

afterEach(async () => {
  await act(() => root.unmount());
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

function User() {
  user = useUser();
  return null;
}

async function open(account: Account): Promise<void> {
  live = createLive(account);
  root = createRoot(document.createElement("div"));
  await act(() =>
    root.render(
      <MillraceDefaults value={{ ...defaultsOf(account), page: tab, share: "page" }}>
        <LiveContext value={live}>
          <Feeds />
          <User />
        </LiveContext>
      </MillraceDefaults>,
    ),
  );
}

/** What the gateway says arrives, is drawn, and what React asks for then is sent. */
const settle = () =>
  act(async () => {
    tab.draw();
    await vi.advanceTimersByTimeAsync(50);
    tab.draw();
    await vi.advanceTimersByTimeAsync(50);
  });

async function greet(userId: string | null): Promise<void> {
  await act(async () =>
    tab.socket.say({ type: "connected", clientId: "c", userId, channels: userId ? [`alerts:${userId}`] : [] }),
  );
  await settle();
}

async function say(channel: string, data: unknown, id?: string): Promise<void> {
  await act(async () => tab.socket.event(channel, id, data));
  await settle();
}

const subscribed = () => tab.socket.commands("subscribe").flatMap(({ channels }) => channels as string[]);
const anybody: Account = { userId: undefined, token: undefined };

describe("the feeds", () => {
  it("listen to what the indexes list, on one socket", async () => {
    await open(anybody);
    await greet(null);
    expect(subscribed()).toEqual(expect.arrayContaining(["jobs:index", "campaign_metrics:index"]));
    await say("jobs:index", { type: "index", ids: ["job_1"] });
    await say("campaign_metrics:index", { type: "index", ids: ["camp_1"] });
    expect(subscribed()).toEqual(
      expect.arrayContaining(["job_progress:job_1", "video_render:job_1", "campaign_metrics:camp_1"]),
    );
    const begun = tab.socket
      .commands("subscribe")
      .find(({ channels }) => (channels as string[]).includes("job_progress:job_1"));
    expect(begun?.["since"]).toMatchObject({ "job_progress:job_1": "0" });
    await say("job_progress:job_1", { status: "processing", progress: 0.5 }, "job_progress:job_1/1-0/1");
    await say("campaign_metrics:camp_1", { clicks: 5 });
    expect(live.jobs.get()).toMatchObject([{ id: "job_1", progress: 0.5 }]);
    expect(live.campaigns.get().all).toMatchObject([{ id: "camp_1" }]);
    expect(tab.sockets).toHaveLength(1);
  });

  it("listen to what the user watches, and stop", async () => {
    await open(anybody);
    await greet(null);
    await act(async () => live.watched.update(() => ["job_progress:mine", "campaign_metrics:mine"]));
    await settle();
    expect(subscribed()).toEqual(expect.arrayContaining(["job_progress:mine", "campaign_metrics:mine"]));
    await act(async () => live.watched.update(() => []));
    await settle();
    expect(tab.socket.commands("unsubscribe").flatMap(({ channels }) => channels)).toEqual(
      expect.arrayContaining(["job_progress:mine", "campaign_metrics:mine"]),
    );
  });

  it.each([
    ["lists others", { type: "index", ids: ["b"] }],
    ["is gone", undefined],
  ] as const)("forget what nobody watches once its index %s", async (_, index) => {
    await open(anybody);
    await greet(null);
    await act(async () => live.watched.update(() => ["job_progress:mine", "campaign_metrics:mine"]));
    for (const channel of ["jobs:index", "campaign_metrics:index"]) await say(channel, { ids: ["a"] });
    for (const id of ["a", "mine"]) {
      await say(`job_progress:${id}`, { status: "processing", progress: 0.5 }, `job_progress:${id}/1-0/1`);
      await say(`campaign_metrics:${id}`, { clicks: 5 });
    }
    expect(live.jobs.get()).toHaveLength(2);
    expect(live.campaigns.get().all).toHaveLength(2);
    for (const channel of ["jobs:index", "campaign_metrics:index"]) {
      if (index) await say(channel, index);
      else await act(async () => tab.socket.say({ type: "deleted", channel }));
    }
    await settle();
    expect(live.jobs.get()).toMatchObject([{ id: "mine" }]);
    expect(live.campaigns.get().all).toMatchObject([{ id: "mine" }]);
  });

  it("forget a campaign whose state is gone", async () => {
    await open(anybody);
    await greet(null);
    await say("campaign_metrics:index", { ids: ["a"] });
    await say("campaign_metrics:a", { clicks: 5 });
    await act(async () => tab.socket.say({ type: "deleted", channel: "campaign_metrics:a" }));
    await settle();
    expect(live.campaigns.get().all).toEqual([]);
  });
});

describe("alerts", () => {
  const alert = { type: "alert", id: "1", severity: "critical", title: "T" };

  it.each([
    ["the greeting", anybody],
    ["the address", { userId: "456", token: undefined }],
    ["the token", { userId: undefined, token: `x.${btoa('{"sub":"456"}')}.y` }],
  ] as const)("of the user that %s tells, and of nobody else", async (_, account) => {
    await open(account);
    expect(new URL(tab.socket.url).pathname + new URL(tab.socket.url).search).toContain(
      withUser("/ws", account).split("=")[0],
    );
    await greet("456");
    expect(user).toBe("456");
    await say("alerts:456", alert, "alerts:456/x.1");
    await say("alerts:457", { ...alert, id: "2" }, "alerts:457/x.2");
    await say("alerts:456", { ...alert, title: "again" }, "alerts:456/x.3");
    expect(live.alerts.get()).toMatchObject([{ id: "1", title: "T", acknowledged: false }]);
    expect(live.newest.get()?.id).toBe("1");
    expect(readAlerts("456")).toHaveLength(1);
    expect(readAlerts("457")).toEqual([]);
  });

  it("that were heard before are there again, and are no news", async () => {
    await open({ userId: "456", token: undefined });
    await greet("456");
    await say("alerts:456", alert, "alerts:456/x.1");
    await act(() => root.unmount());
    await open({ userId: "456", token: undefined });
    await settle();
    expect(live.alerts.get()).toMatchObject([{ id: "1" }]);
    expect(live.newest.get()).toBeUndefined();
  });

  it("are acknowledged in all tabs", async () => {
    await open({ userId: "456", token: undefined });
    await greet("456");
    await say("alerts:456", alert, "alerts:456/x.1");
    const [heard] = readAlerts("456");
    localStorage.setItem("millrace.alerts.456", JSON.stringify([{ ...heard, acknowledged: true }]));
    await act(async () => window.dispatchEvent(new StorageEvent("storage", { key: "millrace.alerts.456" })));
    await settle();
    expect(live.alerts.get()).toMatchObject([{ id: "1", acknowledged: true }]);
  });

  it("reach nobody while the gateway knows no user", async () => {
    await open(anybody);
    await greet(null);
    expect(user).toBeUndefined();
    expect(subscribed().filter((channel) => channel.startsWith("alerts:"))).toEqual([]);
  });
});
