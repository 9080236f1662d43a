// A browser with tabs, for tests: what a page asks of it (page.ts), with a hand on the other end of
// every wire. Messages between tabs and locks behave as the standards say, but at once or within
// microtasks.

import type { Page, PageEvent } from "../src/page.js";

type Listener = (event: never) => void;

/** What a test's gateway sees of a WebSocket, and does with it. */
export class FakeSocket {
  onmessage: ((event: { data: string }) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  readonly sent: Array<Record<string, unknown>> = [];
  isClosed = false;
  answersPings = true;

  constructor(
    readonly url: string,
    readonly protocols: string[],
  ) {}

  send(text: string): void {
    if (this.isClosed) throw new Error("sent on a closed socket");
    const command = JSON.parse(text);
    this.sent.push(command);
    if (command.type === "ping" && this.answersPings) queueMicrotask(() => this.say({ type: "pong" }));
  }

  close(): void {
    this.isClosed = true;
  }

  /** The gateway says something. */
  say(...messages: object[]): void {
    for (const message of messages) this.onmessage?.({ data: JSON.stringify(message) });
  }

  connected(...channels: string[]): void {
    this.say({ type: "connected", clientId: "c1", userId: null, channels });
  }

  event(channel: string, id: string | undefined, data: unknown): void {
    this.say({ type: "event", channel, id, data });
  }

  /** The gateway ends it, or the network does. */
  drop(code = 1006, reason = ""): void {
    this.isClosed = true;
    this.onclose?.({ code, reason });
  }

  /** The commands of one type that were sent. */
  commands(type: string): Array<Record<string, unknown>> {
    return this.sent.filter((command) => command["type"] === type);
  }
}

export class FakeEventSource {
  onerror: (() => void) | null = null;
  isClosed = false;
  private readonly listeners = new Map<string, (event: object) => void>();
  private lastEventId = "";

  constructor(
    readonly url: string,
    readonly options: EventSourceInit,
  ) {}

  addEventListener(name: string, listener: (event: object) => void): void {
    this.listeners.set(name, listener);
  }

  close(): void {
    this.isClosed = true;
  }

  /** An event arrives. As in a browser, one that nobody listens for is not heard, and the id is sticky. */
  say(name: string, data: unknown, id?: string): void {
    this.lastEventId = id ?? this.lastEventId;
    this.listeners.get(name)?.({ type: name, data: JSON.stringify(data), lastEventId: this.lastEventId });
  }

  drop(): void {
    this.onerror?.();
  }
}

/** A request made with fetch, and the answer to it. */
export class FakeRequest {
  readonly headers: Record<string, string>;
  private answer!: (response: Response) => void;
  private refuse!: (error: Error) => void;
  private stream!: ReadableStreamDefaultController<Uint8Array>;
  readonly response = new Promise<Response>((resolve, reject) => {
    this.answer = resolve;
    this.refuse = reject;
  });

  constructor(
    readonly url: string,
    readonly options: RequestInit,
  ) {
    this.headers = options.headers as Record<string, string>;
    options.signal?.addEventListener("abort", () => this.refuse(new Error("aborted")));
  }

  get isClosed(): boolean {
    return this.options.signal?.aborted === true;
  }

  accept(type = "text/event-stream; charset=utf-8"): void {
    const body = new ReadableStream<Uint8Array>({
      start: (controller) => {
        this.stream = controller;
      },
    });
    this.options.signal?.addEventListener("abort", () => this.drop());
    this.answer(new Response(body, { headers: { "Content-Type": type } }));
  }

  respond(status: number, body?: object, headers: Record<string, string> = {}): void {
    this.answer(new Response(body ? JSON.stringify(body) : null, { status, headers }));
  }

  write(text: string): void {
    this.stream.enqueue(new TextEncoder().encode(text));
  }

  say(name: string, data: unknown, id?: string): void {
    this.write(`${id === undefined ? "" : `id: ${id}\n`}event: ${name}\ndata: ${JSON.stringify(data)}\n\n`);
  }

  end(): void {
    this.stream.close();
  }

  drop(): void {
    try {
      this.stream.error(new Error("reset"));
    } catch {
      // It had ended.
    }
  }
}

interface Lock {
  readonly owner: Tab;
  readonly callback: () => Promise<unknown> | undefined;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

/** Everything that tabs of one origin share. */
export class Browser {
  private readonly held = new Map<string, Lock>();
  private readonly queues = new Map<string, Lock[]>();
  readonly channels = new Set<FakeChannel>();

  tab(options: Partial<Tab> = {}): Tab {
    return Object.assign(new Tab(this), options);
  }

  request(
    name: string,
    owner: Tab,
    options: LockOptions,
    callback: () => Promise<unknown> | undefined,
  ): Promise<unknown> {
    return new Promise<void>((resolve, reject) => {
      if (owner.isFrozen) return; // its script stands still
      const lock: Lock = { owner, callback, resolve, reject };
      const queue = this.queues.get(name) ?? [];
      this.queues.set(name, queue);
      if (options.steal) {
        const robbed = this.held.get(name);
        robbed?.owner.whenAwake(() => robbed.reject(new DOMException("stolen", "AbortError")));
        this.held.delete(name);
        queue.unshift(lock);
      } else queue.push(lock);
      options.signal?.addEventListener("abort", () => {
        const waiting = this.queues.get(name) ?? [];
        if (!waiting.includes(lock)) return;
        waiting.splice(waiting.indexOf(lock), 1);
        reject(new DOMException("aborted", "AbortError"));
      });
      queueMicrotask(() => this.grant(name));
    });
  }

  private grant(name: string): void {
    if (this.held.has(name)) return;
    const lock = this.queues.get(name)?.shift();
    if (!lock) return;
    this.held.set(name, lock);
    Promise.resolve(lock.callback()).then(() => {
      if (this.held.get(name) !== lock) return;
      this.held.delete(name);
      lock.resolve();
      this.grant(name);
    });
  }

  /** The tab is gone without a word, as after a crash. */
  crash(tab: Tab): void {
    tab.isFrozen = true;
    for (const channel of this.channels) if (channel.tab === tab) this.channels.delete(channel);
    for (const [name, queue] of this.queues) {
      this.queues.set(
        name,
        queue.filter((lock) => lock.owner !== tab),
      );
    }
    for (const [name, lock] of this.held) {
      if (lock.owner !== tab) continue;
      this.held.delete(name);
      queueMicrotask(() => this.grant(name));
    }
  }
}

class FakeChannel {
  onmessage: ((event: { data: unknown }) => void) | null = null;
  private late: unknown[] = [];

  constructor(
    readonly tab: Tab,
    readonly name: string,
  ) {
    tab.browser.channels.add(this);
  }

  postMessage(data: unknown): void {
    if (!this.tab.browser.channels.has(this) && !this.tab.isFrozen) throw new Error("said on a closed channel");
    if (this.tab.isFrozen) return;
    this.tab.posts++;
    for (const other of this.tab.browser.channels) {
      if (other === this || other.name !== this.name) continue;
      const copy = structuredClone(data);
      if (other.tab.isFrozen) other.late.push(copy);
      else queueMicrotask(() => other.onmessage?.({ data: copy }));
    }
  }

  close(): void {
    this.tab.browser.channels.delete(this);
    this.onmessage = null;
  }

  thaw(): void {
    for (const data of this.late.splice(0)) this.onmessage?.({ data });
  }
}

export class Tab implements Page {
  readonly sockets: FakeSocket[] = [];
  readonly eventSources: FakeEventSource[] = [];
  readonly requests: FakeRequest[] = [];
  hidden = false;
  online = true;
  /** Frozen without a word: it neither hears nor says anything. */
  isFrozen = false;
  private readonly handlers = new Set<(event: PageEvent) => void>();
  private frames: Array<() => void> = [];
  private readonly late: Array<() => void> = [];
  /** How often it said something to the other tabs. */
  posts = 0;

  WebSocket: Page["WebSocket"];
  EventSource: Page["EventSource"];
  BroadcastChannel: Page["BroadcastChannel"];
  locks: Page["locks"];

  constructor(readonly browser: Browser) {
    const tab = this;
    this.WebSocket = class extends FakeSocket {
      constructor(url: string, protocols: string[]) {
        super(url, protocols);
        tab.sockets.push(this);
      }
    } as unknown as Page["WebSocket"];
    this.EventSource = class extends FakeEventSource {
      constructor(url: string, options: EventSourceInit) {
        super(url, options);
        tab.eventSources.push(this);
      }
    } as unknown as Page["EventSource"];
    this.BroadcastChannel = class extends FakeChannel {
      constructor(name: string) {
        super(tab, name);
      }
    } as unknown as Page["BroadcastChannel"];
    this.locks = {
      request: (name: string, options: LockOptions, callback: Listener) =>
        browser.request(name, tab, options, callback as unknown as () => Promise<unknown>),
    } as unknown as Page["locks"];
  }

  fetch(url: string, options: RequestInit): Promise<Response> {
    const request = new FakeRequest(url, options);
    this.requests.push(request);
    return request.response;
  }

  address(): string {
    return "http://gateway.test/page";
  }

  isHidden(): boolean {
    return this.hidden;
  }

  isOnline(): boolean {
    return this.online;
  }

  listen(handler: (event: PageEvent) => void): () => void {
    this.handlers.add(handler);
    return () => this.handlers.delete(handler);
  }

  nextFrame(callback: () => void): void {
    this.frames.push(callback);
  }

  /** Draws a frame. */
  draw(): void {
    for (const frame of this.frames.splice(0)) frame();
  }

  tell(event: PageEvent): void {
    if (event === "visible" || event === "hidden") this.hidden = event === "hidden";
    if (event === "online") this.online = true;
    for (const handler of this.handlers) handler(event);
  }

  /** What a frozen tab hears of waits until it thaws. */
  whenAwake(act: () => void): void {
    if (this.isFrozen) this.late.push(act);
    else act();
  }

  thaw(): void {
    this.isFrozen = false;
    for (const act of this.late.splice(0)) act();
    for (const channel of this.browser.channels) if (channel.tab === this) channel.thaw();
  }

  get listenerCount(): number {
    return this.handlers.size;
  }

  /** The newest WebSocket. */
  get socket(): FakeSocket {
    return newest(this.sockets);
  }

  get eventSource(): FakeEventSource {
    return newest(this.eventSources);
  }

  get request(): FakeRequest {
    return newest(this.requests);
  }

  get openSockets(): number {
    return this.sockets.filter((socket) => !socket.isClosed).length;
  }
}

function newest<T>(all: readonly T[]): T {
  const last = all.at(-1);
  if (last === undefined) throw new Error("none was opened");
  return last;
}

/** Lets everything happen that waits for nothing but its turn. */
export async function settle(): Promise<void> {
  for (let round = 0; round < 20; round++) await Promise.resolve();
}
