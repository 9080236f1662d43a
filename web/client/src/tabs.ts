// One connection for all tabs. A Web Lock decides who holds it, a BroadcastChannel carries what
// arrives. A tab that joins says what it wants, is welcomed with the leader's ledger, and hears every
// message from then on; what it missed before the welcome shows when the ledgers are compared. Joining
// again is how it says that it wants other channels, and how it asks whether the leader lives.
//
//   following --lock granted--> leading --lock stolen, or another leads--> following
//
// The lock passes on by itself when its tab ends. A tab that freezes lets go (Source closes the
// link); one that was frozen without a word falls silent, and is robbed of the lock.

import { connect } from "./connection.js";
import type { LedgerPage } from "./ledger.js";
import type { Link, LinkHost, LinkState, Target } from "./link.js";
import type { Incoming } from "./types.js";

const LOOK_MS = 5_000;
/** Without a word from the leader; then it is asked. */
const QUIET_MS = 10_000;
/** Without a word, though it was asked: its lock is taken. */
const SILENCE_MS = 15_000;
/** How long a hidden leader goes on while a visible tab could lead: it may be slowed down or frozen soon. */
const HIDDEN_LEADER_MS = 30_000;
/** Between two roll calls. A tab that has not answered three of them is no longer counted. */
const ROLL_MS = 60_000;
const MISSED_ROLLS_MAX = 2;
/** What arrives within it goes to the other tabs at once, up to so many messages. */
const GATHER_MS = 10;
const GATHERED_MAX = 256;

/** A channel that a tab listens to, and its position there. */
type Wanted = readonly [name: string, position: string | undefined];

/** What tabs say to each other: first a follower's, then the leader's. */
type Word =
  | { readonly say: "join"; readonly channels: readonly Wanted[] }
  | { readonly say: "leave" | "reconnect" }
  | { readonly say: "send"; readonly text: string }
  | { readonly say: "lead" }
  | { readonly say: "here"; readonly state: LinkState; readonly hidden: boolean; readonly welcome: Welcome | undefined }
  | { readonly say: "messages"; readonly messages: readonly Incoming[] };

interface Welcome {
  readonly to: string;
  readonly ledger: LedgerPage;
}

interface Follower {
  readonly channels: readonly string[];
  missedRolls: number;
}

/** A link that this tab shares with others under a name. The page has locks and BroadcastChannel. */
export function connectTabs(name: string, target: Target, host: LinkHost): Link {
  const { page } = target;
  const { ledger } = host;
  const tab = crypto.randomUUID();
  const words = new (page.BroadcastChannel as NonNullable<typeof page.BroadcastChannel>)(name);
  let state: LinkState;

  // The lock.
  /** Counts the requests for it: an older one says nothing any more. */
  let term = 0;
  let waiting = new AbortController();
  let release: (() => void) | undefined;

  // While following.
  /** Who said so last, or welcomed us. A tab that was robbed of the lock while it was frozen may say more. */
  let leader: string | undefined;
  let welcomed = false;
  let heardAt = 0;
  let askedAt: number | undefined;
  let leaderHiddenAt: number | undefined;
  let wanted = new Set<string>();

  // While leading.
  let connection: Link | undefined;
  const followers = new Map<string, Follower>();
  let gathered: Incoming[] = [];
  let gathering: ReturnType<typeof setTimeout> | undefined;
  let rolledAt = 0;

  function say(word: Word): void {
    flush();
    words.postMessage([tab, word]);
  }

  function change(next: LinkState): void {
    state = next;
    host.changed(next);
  }

  function contend(steal: boolean): void {
    const mine = ++term;
    waiting.abort();
    waiting = new AbortController();
    page.locks
      ?.request(name, steal ? { steal } : { signal: waiting.signal }, () => (mine === term ? lead() : undefined))
      .catch((error: DOMException) => {
        if (mine !== term) return; // we no longer waited for it
        if (error.name === "AbortError") {
          follow(); // it was stolen
          return;
        }
        words.onmessage = null; // this page may have no locks: it connects for itself
        lead();
      });
  }

  /** Leads until the returned promise is kept, which gives the lock back. */
  function lead(): Promise<void> {
    callTheRoll();
    connection = connect(target, {
      ledger,
      channels: () => [...host.channels(), ...[...followers.values()].flatMap(({ channels }) => channels)],
      receive(messages) {
        relay(messages);
        host.receive(messages);
      },
      changed(next) {
        change(next);
        here();
      },
    });
    return new Promise((resolve) => {
      release = resolve;
    });
  }

  function stopLeading(): void {
    connection?.close();
    connection = undefined;
    flush();
    followers.clear();
    release?.();
  }

  /** Follows from now on, whoever leads. */
  function follow(): void {
    stopLeading();
    leader = leaderHiddenAt = undefined;
    welcomed = false;
    change({ status: "connecting", error: null });
    contend(false);
    heard();
    join();
  }

  function join(): void {
    const left = wanted;
    wanted = new Set(host.channels());
    for (const channel of left) {
      if (!wanted.has(channel)) ledger.forget(channel);
    }
    say({ say: "join", channels: [...wanted].map((channel) => [channel, ledger.position(channel)]) });
  }

  function ask(): void {
    askedAt ??= Date.now();
    join();
  }

  function here(welcome?: Welcome): void {
    say({ say: "here", state, hidden: page.isHidden(), welcome });
  }

  function hear(from: string, word: Word): void {
    if (word.say !== "lead") {
      if (connection) hearFollower(connection, from, word);
      else hearLeader(from, word);
    } else if (connection) follow();
    else {
      if (from !== leader) welcomed = false;
      leader = from;
      heard();
      join();
    }
  }

  function hearFollower(ours: Link, from: string, word: Word): void {
    if (word.say === "join") {
      for (const [channel, position] of word.channels) {
        if (position) ledger.begin(channel, position);
      }
      followers.set(from, { channels: word.channels.map(([channel]) => channel), missedRolls: 0 });
      here({ to: from, ledger: ledger.page() });
    } else if (word.say === "leave") followers.delete(from);
    else if (word.say === "send") ours.send(word.text);
    else if (word.say === "reconnect") ours.reconnect();
    ours.sync();
  }

  function hearLeader(from: string, word: Word): void {
    const welcome = word.say === "here" && word.welcome?.to === tab && word.welcome;
    if (welcome) leader ??= from;
    if (from !== leader) return;
    if (welcome) {
      welcomed = true;
      host.receive(ledger.adopt(welcome.ledger));
    }
    if (!welcomed) return;
    heard();
    if (word.say === "messages") host.receive(word.messages);
    else if (word.say === "here") {
      leaderHiddenAt = word.hidden ? (leaderHiddenAt ?? Date.now()) : undefined;
      change(word.state);
    }
  }

  function heard(): void {
    heardAt = Date.now();
    askedAt = undefined;
  }

  /** From time to time: is the leader there, are the followers? */
  function look(): void {
    const isOld = (then: number | undefined, ms: number) => then !== undefined && Date.now() - then >= ms;
    const silent = isOld(askedAt, LOOK_MS) && isOld(heardAt, SILENCE_MS);
    if (connection) {
      if (isOld(rolledAt, ROLL_MS)) callTheRoll();
    } else if (silent || (isOld(leaderHiddenAt, HIDDEN_LEADER_MS) && !page.isHidden())) {
      heard();
      contend(true);
    } else if (isOld(heardAt, QUIET_MS)) ask();
  }

  function callTheRoll(): void {
    rolledAt = Date.now();
    for (const [other, follower] of followers) {
      if (++follower.missedRolls > MISSED_ROLLS_MAX) followers.delete(other);
    }
    connection?.sync();
    say({ say: "lead" });
  }

  /**
   * Hands messages to the other tabs, gathered for a moment: at thousands a second each post costs
   * more than what it carries. A hidden tab's timers are slow, so it gathers nothing.
   */
  function relay(messages: readonly Incoming[]): void {
    if (followers.size === 0) return;
    gathered.push(...messages);
    if (gathered.length >= GATHERED_MAX || page.isHidden()) flush();
    else gathering ??= setTimeout(flush, GATHER_MS);
  }

  function flush(): void {
    clearTimeout(gathering);
    gathering = undefined;
    const messages = gathered;
    gathered = [];
    if (messages.length > 0) words.postMessage([tab, { say: "messages", messages } satisfies Word]);
  }

  words.onmessage = ({ data: [from, word] }: MessageEvent<[string, Word]>) => hear(from, word);
  const looks = setInterval(look, LOOK_MS);
  follow();

  return {
    sync() {
      if (connection) connection.sync();
      else if (leader) join();
    },
    send(text) {
      if (connection) connection.send(text);
      else say({ say: "send", text });
    },
    reconnect() {
      if (connection) connection.reconnect();
      else say({ say: "reconnect" });
    },
    check() {
      if (!connection) ask();
      else {
        connection.check();
        here();
      }
    },
    close() {
      term++;
      clearInterval(looks);
      say({ say: "leave" });
      stopLeading();
      waiting.abort();
      words.onmessage = null;
      words.close();
    },
  };
}
