// Who looks at the page. Without authentication `?userId=` in the page's address says it, as it does
// on the gateway's own; with it a token, kept for this tab's visit, or a cookie that the page never sees.

import type { Defaults } from "@millrace/react";
import { fieldsOf, textIn } from "./fields.js";
import { keep, read } from "./storage.js";

export interface Account {
  readonly userId: string | undefined;
  readonly token: string | undefined;
}

const TOKEN_KEY = "millrace.token";

export function currentAccount(address = location.search): Account {
  return {
    userId: new URLSearchParams(address).get("userId") || undefined,
    token: read(TOKEN_KEY, "sessionStorage") ?? undefined,
  };
}

/** Takes another token, or none, for this tab. */
export function keepToken(token: string | undefined): void {
  keep(TOKEN_KEY, token ?? null, "sessionStorage");
}

/** The path with the user in it, where the page's address names one. */
export function withUser(path: string, { userId }: Account, parameters: Readonly<Record<string, string>> = {}): string {
  const query = new URLSearchParams(parameters);
  if (userId !== undefined) query.set("userId", userId);
  return query.size > 0 ? `${path}?${query}` : path;
}

/** The user that a token names. The gateway checks it, the page only needs a name. */
export function tokenUser(token: string): string | undefined {
  try {
    const body = (token.split(".")[1] ?? "").replaceAll("-", "+").replaceAll("_", "/");
    const bytes = Uint8Array.from(atob(body), (letter) => letter.charCodeAt(0));
    return textIn(fieldsOf(JSON.parse(new TextDecoder().decode(bytes))), "sub");
  } catch {
    return undefined;
  }
}

/** What all hooks of the page connect with. */
export function defaultsOf(account: Account): Defaults {
  const { token } = account;
  const user = token === undefined ? account.userId : tokenUser(token);
  return {
    url: withUser("/ws", account),
    ...(token === undefined ? {} : { token: () => token }),
    ...(user === undefined ? {} : { user }),
  };
}

/** Sends the token along, for requests that are no streams. */
export function authorization({ token }: Account): Record<string, string> {
  return token === undefined ? {} : { Authorization: `Bearer ${token}` };
}
