import { type Api, ApiError, type StreamList } from "./api.js";

/**
 * Finds the streams that a text names: as a client's id, as a user's, and, where it could be one, as
 * a channel's name. One of them may be no good name, as long as not all are.
 */
export async function find(api: Api, text: string, signal: AbortSignal): Promise<StreamList> {
  const queries: Record<string, string>[] = [{ client: text }, { user: text }];
  if (text.includes(":")) queries.push({ channel: text });
  const answers = await Promise.allSettled(queries.map((query) => api.streams(query, signal)));
  const lists = answers.flatMap((answer) => (answer.status === "fulfilled" ? [answer.value] : []));
  for (const answer of answers) {
    if (answer.status === "rejected" && (lists.length === 0 || ApiError.of(answer.reason).status !== 400))
      throw answer.reason;
  }
  const streams = new Map(lists.flatMap((list) => list.streams).map((stream) => [stream.client, stream]));
  const listed = lists.reduce((sum, list) => sum + list.streams.length, 0);
  const matched = lists.reduce((sum, list) => sum + list.matched, 0);
  return {
    streams: [...streams.values()],
    matched: streams.size + matched - listed,
    open: lists[0]?.open ?? 0,
  };
}
