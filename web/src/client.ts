// A client whose answers survive the network: it reconnects, resumes where it was, and loses or doubles nothing.

import { Position, StreamBrokenError, type StreamEvent, broken, textOf } from "./events.js";
import { Connection, pause } from "./network.js";
import { Backoff, PATIENT, RETRIED_STATUSES, type RetryPolicy } from "./retry.js";

/** How long the server goes on without us, in seconds: time for a network to come back. */
export const KEEP_S = 60;

/** A turn of a conversation. */
export interface Message {
  role: "system" | "user" | "assistant";
  content: string;
}

/** The body of a chat request; other fields of the API may stand beside these. */
export interface ChatRequest {
  messages: Message[];
  stream_options?: Record<string, unknown>;
  [field: string]: unknown;
}

/** What a reader tells about itself: see docs/streaming.md. */
export interface Report {
  number?: number;
  buffer_s?: number;
  buffer_utilisation?: number;
  rtt_s?: number;
  stalls?: number;
  pace?: "off" | "reader";
  speed?: number;
}

export interface ClientOptions {
  /** Such as "http://127.0.0.1:8000"; empty for the server that a page came from. */
  baseUrl?: string;
  apiKey?: string;
  retry?: Partial<RetryPolicy>;
  /** Longest silence on a connection; the server gives a sign of life every 15 seconds. */
  silenceMs?: number;
  /** For other runtimes and for tests. */
  fetch?: typeof globalThis.fetch;
}

export interface ReadOptions {
  /** Aborting it stops the answer on the server too. */
  signal?: AbortSignal;
  /** Where to begin: a fresh one asks, one that has a `streamId` resumes. It moves with the stream. */
  position?: Position;
  /** Told before each wait for a new connection. */
  onRetry?: (waitMs: number) => void;
}

export class Client {
  private readonly baseUrl: string;
  private readonly headers: Record<string, string>;
  private readonly retry: RetryPolicy;
  private readonly silenceMs: number;
  private readonly fetch: typeof globalThis.fetch;

  constructor(options: ClientOptions = {}) {
    this.baseUrl = (options.baseUrl ?? "").replace(/\/$/, "");
    this.headers = options.apiKey ? { authorization: `Bearer ${options.apiKey}` } : {};
    this.retry = { ...PATIENT, ...options.retry };
    this.silenceMs = options.silenceMs ?? 40_000;
    this.fetch = options.fetch ?? ((...given) => globalThis.fetch(...given));
  }

  /** The answer to a conversation, piece by piece; throws as `events`. */
  async *text(request: ChatRequest, options: ReadOptions = {}): AsyncGenerator<string> {
    for await (const event of this.events(request, options)) {
      const text = textOf(event);
      if (text) yield text;
    }
  }

  /**
   * Every event of the answer, once, in order, however often the connection breaks.
   *
   * Throws StreamBrokenError when the server refused or failed, or the connection did not come back; the reason of
   * `signal` when that was aborted.
   */
  async *events(request: ChatRequest, options: ReadOptions = {}): AsyncGenerator<StreamEvent> {
    const position = options.position ?? new Position();
    const backoff = new Backoff(this.retry);
    while (!position.isDone) {
      const connection = new Connection(this.silenceMs, options.signal);
      let failure: StreamBrokenError | null = null;
      let atLeastMs = 0;
      try {
        const response = await this.open(position, request, connection.signal);
        if (response.ok) {
          position.connect(response.headers.get("x-stream-id"));
          for await (const text of decoded(response, connection)) {
            for (const event of position.read(text)) {
              backoff.noteProgress();
              yield event;
            }
          }
        } else {
          failure = broken(response.status, await response.json().catch(() => null));
          if (!RETRIED_STATUSES.has(response.status)) throw failure;
          atLeastMs = 1000 * Number(response.headers.get("retry-after") ?? 0) || 0;
        }
      } catch (error) {
        if (error instanceof StreamBrokenError) throw error; // anything else is the network
      } finally {
        connection.close();
        await this.stopIfAborted(position, options.signal);
      }
      options.signal?.throwIfAborted();
      if (!position.isDone) await this.wait(backoff, atLeastMs, failure, options);
    }
  }

  /** End the work of a stream; its text so far stays readable. */
  async stop(streamId: string): Promise<void> {
    await this.call("DELETE", `/v1/streams/${streamId}`);
  }

  /** Tell the server how the reader is doing, and how fast it wants text. */
  async acknowledge(streamId: string, report: Report): Promise<void> {
    await this.call("POST", `/v1/streams/${streamId}/ack`, report);
  }

  private open(position: Position, request: ChatRequest, signal: AbortSignal): Promise<Response> {
    if (position.streamId) {
      const headers = { ...this.headers, "last-event-id": String(position.lastNumber) };
      return this.fetch(`${this.baseUrl}/v1/streams/${position.streamId}`, { headers, signal, cache: "no-store" });
    }
    // with events the response begins at once, so an answer can be stopped by its name while it waits
    const options = { on_disconnect: KEEP_S, events: true, ...request.stream_options };
    const body = JSON.stringify({ ...request, stream: true, stream_options: options });
    const headers = { ...this.headers, "content-type": "application/json" };
    return this.fetch(`${this.baseUrl}/v1/chat/completions`, { method: "POST", headers, body, signal });
  }

  private async call(method: string, path: string, body?: object): Promise<void> {
    const backoff = new Backoff(this.retry);
    for (;;) {
      let failure = new StreamBrokenError("The server could not be reached. Try again later.");
      try {
        const headers = { ...this.headers, "content-type": "application/json" };
        const sent = body === undefined ? {} : { body: JSON.stringify(body) };
        const response = await this.fetch(this.baseUrl + path, { method, headers, ...sent });
        if (response.ok) return;
        failure = broken(response.status, await response.json().catch(() => null));
      } catch {
        // no connection: the next try may find one
      }
      if (failure.status && !RETRIED_STATUSES.has(failure.status)) throw failure;
      const waitMs = backoff.nextWaitMs();
      if (waitMs === null) throw failure;
      await pause(waitMs);
    }
  }

  private async wait(
    backoff: Backoff,
    atLeastMs: number,
    failure: StreamBrokenError | null,
    options: ReadOptions,
  ): Promise<void> {
    const waitMs = backoff.nextWaitMs(atLeastMs);
    if (waitMs === null) throw failure ?? new StreamBrokenError("The connection was lost. Try again later.");
    options.onRetry?.(waitMs);
    await pause(waitMs, options.signal);
  }

  /** An answer that nobody wants any more would otherwise go on for a while. */
  private async stopIfAborted(position: Position, signal: AbortSignal | undefined): Promise<void> {
    if (signal?.aborted && position.streamId && !position.isDone) {
      await this.stop(position.streamId).catch(() => undefined);
    }
  }
}

/** The text of a response as it comes. */
async function* decoded(response: Response, connection: Connection): AsyncGenerator<string> {
  const reader = response.body?.getReader();
  const decoder = new TextDecoder();
  while (reader) {
    const { value, done } = await reader.read();
    if (done) return;
    connection.noteLife();
    yield decoder.decode(value, { stream: true });
  }
}
