// Reads one answer with the TypeScript client and prints what it got; its argument says how (see the test).

import { Client, Position, StreamBrokenError, textOf } from "../../../src/vivace/server/web/client/index.js";

const given = JSON.parse(process.argv[2]);
const client = new Client({ baseUrl: given.url, apiKey: given.apiKey, retry: given.retry, silenceMs: given.silenceMs });
const told = { texts: [], numbers: [], names: [], retries: 0, error: null };
const controller = new AbortController();
const position = new Position(given.streamId, given.lastNumber);
const request = { messages: [{ role: "user", content: "hello" }], ...given.fields };
try {
  const options = { position, signal: controller.signal, onRetry: () => (told.retries += 1) };
  for await (const event of client.events(request, options)) {
    told.numbers.push(event.number);
    if (event.name) told.names.push(event.name);
    else told.texts.push(textOf(event));
    if (told.numbers.length === given.abortAfter) controller.abort();
    if (told.numbers.length === given.leaveAfter) break;
  }
  if (given.report) await client.acknowledge(position.streamId, given.report);
} catch (error) {
  const isBroken = error instanceof StreamBrokenError;
  told.error = { name: error.name, message: error.message, ...(isBroken && { status: error.status, code: error.code }) };
}
told.streamId = position.streamId;
told.lastNumber = position.lastNumber;
console.log(JSON.stringify(told));
