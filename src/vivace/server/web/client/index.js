export { Client, KEEP_S } from "./client.js";
export { Position, StreamBrokenError, textOf, } from "./events.js";
export { Backoff } from "./retry.js";
