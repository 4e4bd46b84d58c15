// Uses the official client for Node as it is, and prints what it got.

import { pathToFileURL } from "node:url";

const { url } = JSON.parse(process.argv[2]);
const { default: OpenAI } = await import(pathToFileURL(`${process.argv[3]}/openai/index.mjs`));
const client = new OpenAI({ baseURL: `${url}v1`, apiKey: "unused", maxRetries: 0 });
const messages = [{ role: "user", content: "hello" }];
const model = "scripted";
const told = {};

const whole = await client.chat.completions.create({ model, messages });
told.whole = whole.choices[0].message.content;

const chunks = [];
const stream_options = { include_usage: true };
for await (const chunk of await client.chat.completions.create({ model, messages, stream: true, stream_options })) {
  chunks.push(chunk);
}
told.streamed = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");
told.tokens = chunks.at(-1).usage.completion_tokens;

told.response = (await client.responses.create({ model, input: "hello" })).output_text;

const events = [];
for await (const event of await client.responses.create({ model, input: "hello", stream: true, background: true })) {
  events.push(event);
}
told.numbers = events.map((event) => event.sequence_number);
const id = events[0].response.id;
const rest = [];
for await (const event of await client.responses.retrieve(id, { stream: true, starting_after: 5 })) rest.push(event);
told.isResumed = JSON.stringify(rest) === JSON.stringify(events.slice(6));
told.cancelled = (await client.responses.cancel(id)).status;
await client.responses.delete(id);
told.afterDelete = await client.responses.retrieve(id).then(
  () => null,
  (error) => [error.status, error.code],
);
console.log(JSON.stringify(told));
