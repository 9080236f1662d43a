/** A channel, as text or in one of the gateway's three object forms. */
export type Channel =
  | string
  | { readonly type: string; readonly id: string; readonly userId?: string }
  | { readonly type: string; readonly userId: string };

/** The channel as text: `type:id`, `type:userId` or `type:id:userId`. */
export function channelName(channel: Channel): string {
  if (typeof channel === "string") return channel;
  const { type, userId } = channel;
  return [type, "id" in channel ? channel.id : undefined, userId].filter((part) => part !== undefined).join(":");
}
