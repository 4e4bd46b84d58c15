// Talks to the server: is it ready, which model, and one streamed chat answer.

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

/** The JSON objects of a stream of server-sent events, until its end or `[DONE]` (which is told as null). */
export async function* parseEvents(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value;
    const blocks = held.split("\n\n");
    held = blocks.pop();
    for (const block of blocks) {
      const lines = block.split("\n").filter((line) => line.startsWith("data:"));
      if (!lines.length) continue; // a comment, or an event we do not know
      const data = lines.map((line) => line.slice(5).trimStart()).join("\n");
      if (data === "[DONE]") {
        yield null;
        return;
      }
      yield JSON.parse(data);
    }
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
 * Ask for the next turn. Yields {text}, {finish} and {usage} objects as they come and returns whether the stream was
 * complete. Aborting `signal` stops the answer on the server too.
 */
export async function* streamAnswer(messages, settings, signal) {
  const room = await roomAfter(messages, settings, signal);
  const response = await fetch("/v1/chat/completions", {
    method: "POST",
    headers: headers(settings),
    signal,
    body: JSON.stringify({
      messages,
      temperature: settings.temperature,
      max_tokens: Math.min(settings.maxTokens, room),
      stream: true,
      stream_options: { include_usage: true },
    }),
  });
  if (!response.ok) throw new ServerError(await errorMessage(response));
  for await (const chunk of parseEvents(response.body)) {
    if (chunk === null) return true;
    if (chunk.error) throw new ServerError(chunk.error.message);
    const choice = chunk.choices[0];
    if (choice?.delta.content) yield { text: choice.delta.content };
    if (choice?.finish_reason) yield { finish: choice.finish_reason };
    if (chunk.usage) yield { usage: chunk.usage };
  }
  return false;
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
