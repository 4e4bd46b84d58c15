// Server-sent events read piece by piece, and how far a stream has been read. No network here.

/** Token counts of a request. */
export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
}

/** A piece of one answer. */
export interface ChunkChoice {
  index: number;
  delta: { role?: "assistant"; content?: string };
  finish_reason: "stop" | "length" | "content_filter" | null;
}

/** A chunk of a streamed chat answer. */
export interface ChatChunk {
  id: string;
  model: string;
  choices: ChunkChoice[];
  usage?: Usage | null;
}

/** A piece of the answer; `name` is empty. */
export interface ChunkEvent {
  number: number;
  name: "";
  data: ChatChunk;
}

/** What the named events tell, for those who asked for them (`stream_options.events`). */
export interface Notices {
  queued: { position: number; expected_wait_s: number | null };
  prefill: { prompt_tokens: number; computed_tokens: number };
  slow: { waited_s: number };
  network: { quality: "poor" | "good"; send_every_s: number };
  degraded: { steps: string[]; step?: string; is_taken?: boolean; value?: string };
  end: {
    status: "completed" | "incomplete" | "failed" | "cancelled";
    reasons: string[];
    usage: { prompt_tokens: number; completion_tokens: number } | null;
    error_code: string | null;
  };
}

/** A named event that this client knows. */
export type NoticeEvent = {
  [Name in keyof Notices]: { number: number; name: Name; data: Notices[Name] };
}[keyof Notices];

/** One event of a stream. A server may send named events that are not in `Notices`. */
export type StreamEvent = ChunkEvent | NoticeEvent;

/** The server refused, the stream failed, or no connection could be had any more. `status` 0: there was no answer. */
export class StreamBrokenError extends Error {
  override readonly name = "StreamBrokenError";

  constructor(
    message: string,
    readonly status = 0,
    readonly code = "",
  ) {
    super(message);
  }
}

/** The error for an error object of the server. */
export function broken(status: number, body: unknown): StreamBrokenError {
  const told = (body as { error?: { message?: string; code?: string | null } } | null)?.error;
  return new StreamBrokenError(told?.message ?? `The server answered ${status}.`, status, told?.code ?? "");
}

/** What an event adds to the first choice. */
export function textOf(event: StreamEvent): string {
  if (event.name !== "") return "";
  return event.data.choices.map((choice) => (choice.index === 0 ? (choice.delta.content ?? "") : "")).join("");
}

/**
 * Where a reader is in a stream; fed with the text of one connection after the other. An event counts once its blank
 * line has come, so one that a cut has torn is asked for again.
 */
export class Position {
  isDone = false;
  private held = "";

  constructor(
    public streamId = "",
    public lastNumber = 0,
  ) {}

  /** A connection has begun. */
  connect(streamId: string | null): void {
    this.streamId = streamId ?? this.streamId;
    this.held = "";
  }

  /** Take more text; gives the events that it completes, but for those that were there before. */
  *read(text: string): Generator<StreamEvent> {
    this.held += text;
    for (let end = this.held.indexOf("\n\n"); end >= 0; end = this.held.indexOf("\n\n")) {
      const block = this.held.slice(0, end);
      this.held = this.held.slice(end + 2);
      const event = this.readBlock(block);
      if (event !== null) yield event;
    }
  }

  private readBlock(block: string): StreamEvent | null {
    const fields = new Map<string, string>();
    for (const line of block.split("\n")) {
      const colon = line.indexOf(":");
      if (colon > 0) fields.set(line.slice(0, colon), line.slice(colon + 1).replace(/^ /, ""));
    }
    const data = fields.get("data");
    if (data === undefined) return null;
    if (data === "[DONE]") {
      this.isDone = true;
      return null;
    }
    const number = Number(fields.get("id") ?? 0);
    if (number && number <= this.lastNumber) return null;
    this.lastNumber = number || this.lastNumber;
    const parsed: unknown = JSON.parse(data);
    const name = fields.get("event") ?? "";
    if (!name && typeof parsed === "object" && parsed !== null && "error" in parsed) throw broken(0, parsed);
    return { number, name, data: parsed } as StreamEvent;
  }
}
