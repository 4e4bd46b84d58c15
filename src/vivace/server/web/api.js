// Talks to the server: is it ready, which model, and one streamed chat answer.

import { Client } from "./client/index.js";

/** An error the server told in its own words. */
export class ServerError extends Error {}

function headers(settings) {
  const key = settings.apiKey ? { authorization: `Bearer ${settings.apiKey}` } : {};
  return { "content-type": "application/json", ...key };
}

/** "ready" (with the model's name), "loading", or "failed" with a message; null when nothing answers. */
export async function readiness() {
  try {
    const response = await fetch("/ready", { cache: "no-store" });
    return await response.json();
  } catch {
    return null;
  }
}

/** How many tokens of answer still fit into the model's context after a conversation; at least 1. */
async function roomAfter(messages, settings, signal) {
  const response = await fetch("/tokenize", {
    method: "POST",
    headers: headers(settings),
    signal,
    body: JSON.stringify({ messages }),
  });
  if (!response.ok) throw new ServerError(await errorMessage(response));
  const { count, max_model_len: contextLength } = await response.json();
  return Math.max(1, contextLength - count);
}

/**
 * Ask for the next turn. Yields {text}, {finish} and {usage} objects as they come. A connection that breaks is made
 * again, and nothing is lost or doubled; `onRetry` is told. Aborting `signal` stops the answer on the server too.
 */
export async function* streamAnswer(messages, settings, signal, onRetry) {
  const room = await roomAfter(messages, settings, signal);
  const client = new Client({ apiKey: settings.apiKey });
  const request = {
    messages,
    temperature: settings.temperature,
    max_tokens: Math.min(settings.maxTokens, room),
    stream_options: { include_usage: true },
  };
  for await (const { name, data } of client.events(request, { signal, onRetry })) {
    if (name) continue;
    const choice = data.choices[0];
    if (choice?.delta.content) yield { text: choice.delta.content };
    if (choice?.finish_reason) yield { finish: choice.finish_reason };
    if (data.usage) yield { usage: data.usage };
  }
}

/** Tell the server that somebody goes on with a conversation, so that it need not be read again. Nothing depends on it. */
export async function hint(messages, settings) {
  const body = JSON.stringify({ messages });
  await fetch("/v1/hints", { method: "POST", headers: headers(settings), body }).catch(() => null);
}

async function errorMessage(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `HTTP ${response.status}`;
  }
}
