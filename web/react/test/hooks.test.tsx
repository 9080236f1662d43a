import { act, type ReactNode, StrictMode } from "react";
import { createRoot, hydrateRoot, type Root } from "react-dom/client";
import { renderToString } from "react-dom/server";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Browser, type Tab } from "../../client/test/browser.js";
import {
  type Channel,
  type LiveOptions,
  type LiveSocket,
  MillraceDefaults,
  ReadyState,
  useChannel,
  useSSE,
  useWebSocket,
} from "../src/index.js";

interface Progress {
  progress: number;
}

let tab: Tab;
let container: HTMLElement;
let root: Root | undefined;
/** What the component under test returned, render by render. */
let renders: Array<LiveSocket<Progress>>;

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal("IS_REACT_ACT_ENVIRONMENT", true);
  tab = new Browser().tab();
  container = document.body.appendChild(document.createElement("div"));
  renders = [];
});

afterEach(async () => {
  await act(() => root?.unmount());
  root = undefined;
  container.remove();
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

function Job({ channel = "job:1", options }: { channel?: Channel | null; options?: LiveOptions<Progress> }) {
  const live = useChannel<Progress>(channel, options);
  renders.push(live);
  return <p>{live.lastJsonMessage ? `${live.lastJsonMessage.progress}` : live.status}</p>;
}

/** As the seed writes it. */
function Seed({ showError }: { showError: (message: string) => void }) {
  const { error, status } = useSSE("/api/stream?channel=job:1", {
    transport: "eventsource",
    reconnect: true,
    maxReconnectAttempts: 5,
    reconnectInterval: 3_000,
    onError: (failure) => showError(failure.message),
  });
  return <p>{error ? `${status}: ${error.message}` : status}</p>;
}

function Socket({ url, onMessage }: { url: string; onMessage?: LiveOptions["onMessage"] }) {
  useWebSocket(url, { onMessage });
  return null;
}

const inTab = (children: ReactNode) => (
  <MillraceDefaults value={{ page: tab, share: "page" }}>{children}</MillraceDefaults>
);

async function render(children: ReactNode): Promise<void> {
  root ??= createRoot(container);
  await act(() => root?.render(inTab(children)));
}

/** Draws a frame, and lets React do what it does then. */
const frame = () => act(() => tab.draw());
const publish = (progress: number) => tab.socket.event("job:1", `job:1/x.${progress}`, { progress });

describe("useChannel", () => {
  it("shows the newest event", async () => {
    await render(<Job />);
    expect(tab.socket.url).toBe("ws://gateway.test/ws?format=envelope");
    tab.socket.connected();
    expect(tab.socket.commands("subscribe")).toEqual([{ type: "subscribe", channels: ["job:1"] }]);
    publish(1);
    publish(2);
    await frame();
    expect(container.textContent).toBe("2");
    expect(renders.at(-1)).toMatchObject({
      readyState: ReadyState.OPEN,
      status: "open",
      lastEventId: "job:1/x.2",
      error: null,
    });
  });

  it("opens once under Strict Mode, and subscribes once", async () => {
    await render(
      <StrictMode>
        <Job />
      </StrictMode>,
    );
    tab.socket.connected();
    await act(() => vi.advanceTimersByTimeAsync(5_000));
    expect(tab.sockets.length).toBe(1);
    expect(tab.socket.sent).toEqual([{ type: "subscribe", channels: ["job:1"] }]);
  });

  it("renders on a server, where it opens nothing, and hydrates without a word", async () => {
    const complaints = vi.spyOn(console, "error");
    container.innerHTML = renderToString(inTab(<Job />));
    expect(container.textContent).toBe("idle");
    expect([tab.sockets.length, tab.listenerCount]).toEqual([0, 0]);
    await act(() => {
      root = hydrateRoot(container, inTab(<Job />));
    });
    expect(tab.sockets.length).toBe(1);
    expect(complaints).not.toHaveBeenCalled();
  });

  it("lets go when it is unmounted", async () => {
    await render(<Job />);
    tab.socket.connected();
    await render(null);
    await vi.advanceTimersByTimeAsync(1_000);
    expect([tab.openSockets, tab.listenerCount]).toEqual([0, 0]);
  });

  it("renders at most once a frame, while a callback sees every event", async () => {
    const onMessage = vi.fn();
    await render(<Job options={{ onMessage }} />);
    tab.socket.connected();
    await frame();
    const before = renders.length;
    // A second of 10,000 events, at 60 frames.
    for (let n = 0; n < 60; n++) {
      for (let event = 0; event < 167; event++) publish(n * 167 + event);
      await frame();
    }
    expect(onMessage).toHaveBeenCalledTimes(60 * 167);
    expect(renders.length - before).toBe(60);
    expect(renders.at(-1)?.lastJsonMessage).toEqual({ progress: 60 * 167 - 1 });
  });

  it("shares the socket, and follows its channel", async () => {
    await render([<Job key="a" />, <Job key="b" channel={{ type: "job", id: "2" }} />]);
    tab.socket.connected();
    await render([<Job key="a" />, <Job key="b" channel="job:3" />]);
    await act(() => vi.advanceTimersByTimeAsync(2_000));
    expect(tab.sockets.length).toBe(1);
    expect(tab.socket.sent).toEqual([
      { type: "subscribe", channels: ["job:1", "job:2"] },
      { type: "unsubscribe", channels: ["job:2"] },
      { type: "subscribe", channels: ["job:3"] },
    ]);
  });

  it("listens to nothing when there is no channel", async () => {
    await render(<Job channel={null} />);
    expect(tab.sockets.length).toBe(0);
    expect(renders.at(-1)?.readyState).toBe(ReadyState.UNINSTANTIATED);
  });

  it("calls the callbacks of the last render", async () => {
    const [first, second] = [vi.fn(), vi.fn()];
    await render(<Job options={{ onMessage: first }} />);
    await render(<Job options={{ onMessage: second }} />);
    tab.socket.connected();
    publish(1);
    expect([first.mock.calls.length, second.mock.calls.length]).toEqual([0, 1]);
  });
});

describe("what a hook gives", () => {
  it("stays the same from render to render", async () => {
    await render(<Job />);
    await render(<Job />);
    const [one, other] = [renders.at(0), renders.at(-1)];
    expect(renders.length).toBeGreaterThan(1);
    expect(one?.sendJsonMessage).toBe(other?.sendJsonMessage);
    expect(one?.reconnect).toBe(other?.reconnect);
  });

  it("sends, leaves and comes back", async () => {
    await render(<Job />);
    tab.socket.connected();
    renders.at(-1)?.sendJsonMessage({ type: "publish", channel: "job:1", event: 1, ref: 7 });
    expect(tab.socket.commands("publish")).toEqual([{ type: "publish", channel: "job:1", event: 1, ref: 7 }]);
    renders.at(-1)?.disconnect();
    await frame();
    expect(renders.at(-1)).toMatchObject({ status: "closed", readyState: ReadyState.CLOSED });
    await vi.advanceTimersByTimeAsync(1_000);
    expect(tab.openSockets).toBe(0);
    await act(() => renders.at(-1)?.reconnect());
    expect(tab.openSockets).toBe(1);
  });

  it("filters", async () => {
    await render(<Job options={{ filter: (message) => message.kind === "event" && message.data.progress > 1 }} />);
    tab.socket.connected();
    publish(2);
    publish(1);
    await frame();
    expect(container.textContent).toBe("2");
  });
});

describe("useSSE and useWebSocket", () => {
  it("take the seed's names", async () => {
    const onError = vi.fn();
    await render(<Seed showError={onError} />);
    for (let attempt = 0; attempt < 10; attempt++) {
      if (!tab.eventSource.isClosed) tab.eventSource.drop();
      await act(() => vi.advanceTimersByTimeAsync(3_000));
    }
    await frame();
    expect(tab.eventSources.length).toBe(6);
    expect(onError).toHaveBeenCalledTimes(6);
    expect(container.textContent).toBe("failed: the connection was lost");
  });

  it("hear everything that the socket carries", async () => {
    const onMessage = vi.fn();
    await render([<Socket key="all" url="/ws" onMessage={onMessage} />, <Job key="job" />]);
    expect(tab.sockets.length).toBe(1);
    tab.socket.connected("alerts:456");
    tab.socket.event("alerts:456", "alerts:456/x.1", { severity: "high" });
    publish(1);
    expect(onMessage.mock.calls.map(([message]) => message.channel)).toEqual(["alerts:456", "job:1"]);
  });

  it("connect anew when the address is another", async () => {
    await render(<Socket url="/ws?userId=1" />);
    await render(<Socket url="/ws?userId=2" />);
    await vi.advanceTimersByTimeAsync(1_000);
    expect(tab.sockets.map(({ url, isClosed }) => [url.includes("userId=2"), isClosed])).toEqual([
      [false, true],
      [true, false],
    ]);
  });
});
