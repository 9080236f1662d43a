export type * from "@millrace/client";
export { type Channel, channelName } from "./channel.js";
export {
  type Defaults,
  type Live,
  type LiveOptions,
  type LiveSocket,
  MillraceDefaults,
  ReadyState,
  useChannel,
  useSSE,
  useWebSocket,
} from "./hooks.js";
