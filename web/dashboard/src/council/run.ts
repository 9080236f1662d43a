import type { Message, Notice, Status, StreamError } from "@millrace/client";
import { useSSE } from "@millrace/react";
import { useState } from "react";
import { type Account, withUser } from "../model/account.js";
import { createStore, useStore } from "../model/store.js";
import { type Council, conclude, greet, hear, nobody } from "./council.js";
import { COUNCIL } from "./start.js";

export interface CouncilRun {
  readonly council: Council;
  readonly status: Status;
  readonly error: StreamError | null;
  readonly reconnect: () => void;
}

/**
 * Listens to a council by its id, from its beginning: the gateway tells what was said so far, then
 * what is being said. The id never changes for a component: give it as key. The stream is no other
 * tab's: what was said so far is told to each connection once.
 */
export function useCouncil(id: string, account: Account): CouncilRun {
  const [store] = useState(() => createStore<Council>(nobody));
  const { status, error, reconnect } = useSSE(withUser(COUNCIL, account, { id }), {
    share: false,
    onMessage(message: Message) {
      if (message.kind === "event") store.update((council) => hear(council, message.data));
      if (message.kind === "complete") store.update((council) => conclude(council, message.data));
    },
    onNotice({ type, data }: Notice) {
      if (type === "connected") store.update((council) => greet(council, data));
    },
  });
  return { council: useStore(store), status, error, reconnect };
}
