import type { Incoming } from "./types.js";
import { type End, ended, type WireEvents } from "./wire.js";

/** Some messages take a moment: what is compressed is undone by the browser, aside. */
export type Decoded = Incoming[] | Promise<Incoming[]>;

/** Thrown where a message is longer than it may be; `RangeError` is what nothing else here throws. */
export const tooLarge = (bytesMax: number) => new RangeError(`a message of more than ${bytesMax} bytes`);

/** How many messages may wait behind one that is being inflated. */
const WAITING_MAX = 10_000;

export interface Intake {
  readonly push: (decode: () => Decoded) => void;
  /** The wire is over, for a reason that is told. */
  readonly end: (why: End) => void;
  /** Nobody wants it any more. */
  readonly close: () => void;
}

/**
 * The end of a wire that is the same for all kinds. It keeps messages in order where some take a
 * moment to decode, tells the end once, and lets go of the wire, by `release`. What can't be decoded,
 * or piles up, ends the wire: a new one goes on from the last message that was handed over.
 */
export function createIntake(events: WireEvents, release: () => void): Intake {
  const waiting: Decoded[] = [];
  let open = true;

  function close(): void {
    if (open) release();
    open = false;
  }

  function end(why: End): void {
    if (!open) return;
    close();
    events.ended(why);
  }

  function refuse(error: unknown): void {
    end(ended(error instanceof RangeError ? "too_large" : "undecodable", String(error), true));
  }

  async function drain(): Promise<void> {
    while (waiting.length > 0) {
      const messages = (await waiting[0]) as Incoming[];
      if (!open) return;
      events.messages(messages);
      waiting.shift();
    }
  }

  function push(decode: () => Decoded): void {
    if (!open) return;
    try {
      const decoded = decode();
      if (waiting.length === 0 && Array.isArray(decoded)) {
        events.messages(decoded);
        return;
      }
      // Looked at in its turn: until then nobody else would hear that it failed.
      Promise.resolve(decoded).catch(() => {});
      if (waiting.push(decoded) === 1) drain().catch(refuse);
      else if (waiting.length > WAITING_MAX) end(ended("lost", "messages pile up"));
    } catch (error) {
      refuse(error);
    }
  }

  return { push, end, close };
}
