// Ids: CHANNEL/POSITION. A channel holds no slash. The position of a log is MS-SEQ/H, where H, the
// gateway's read horizon, differs from reading to reading of the same entry; others are opaque.

export function channelOf(id: string | undefined): string | undefined {
  return id && /^([^/]+)\//.exec(id)?.[1];
}

/** The id without a horizon: the same for the same event, however often it is read. */
export function eventOf(id: string): string {
  return id.replace(/(\/\d+-\d+)\/\d+$/, "$1");
}
