export { Client, KEEP_S, type ChatRequest, type ClientOptions, type Message, type ReadOptions, type Report } from "./client.js";
export {
  Position,
  StreamBrokenError,
  textOf,
  type ChatChunk,
  type ChunkEvent,
  type NoticeEvent,
  type Notices,
  type StreamEvent,
  type Usage,
} from "./events.js";
export { Backoff, type RetryPolicy } from "./retry.js";
