// Server-sent events read piece by piece, and how far a stream has been read. No network here.
/** The server refused, the stream failed, or no connection could be had any more. `status` 0: there was no answer. */
export class StreamBrokenError extends Error {
    status;
    code;
    name = "StreamBrokenError";
    constructor(message, status = 0, code = "") {
        super(message);
        this.status = status;
        this.code = code;
    }
}
/** The error for an error object of the server. */
export function broken(status, body) {
    const told = body?.error;
    return new StreamBrokenError(told?.message ?? `The server answered ${status}.`, status, told?.code ?? "");
}
/** What an event adds to the first choice. */
export function textOf(event) {
    if (event.name !== "")
        return "";
    return event.data.choices.map((choice) => (choice.index === 0 ? (choice.delta.content ?? "") : "")).join("");
}
/**
 * Where a reader is in a stream; fed with the text of one connection after the other. An event counts once its blank
 * line has come, so one that a cut has torn is asked for again.
 */
export class Position {
    streamId;
    lastNumber;
    isDone = false;
    held = "";
    constructor(streamId = "", lastNumber = 0) {
        this.streamId = streamId;
        this.lastNumber = lastNumber;
    }
    /** A connection has begun. */
    connect(streamId) {
        this.streamId = streamId ?? this.streamId;
        this.held = "";
    }
    /** Take more text; gives the events that it completes, but for those that were there before. */
    *read(text) {
        this.held += text;
        for (let end = this.held.indexOf("\n\n"); end >= 0; end = this.held.indexOf("\n\n")) {
            const block = this.held.slice(0, end);
            this.held = this.held.slice(end + 2);
            const event = this.readBlock(block);
            if (event !== null)
                yield event;
        }
    }
    readBlock(block) {
        const fields = new Map();
        for (const line of block.split("\n")) {
            const colon = line.indexOf(":");
            if (colon > 0)
                fields.set(line.slice(0, colon), line.slice(colon + 1).replace(/^ /, ""));
        }
        const data = fields.get("data");
        if (data === undefined)
            return null;
        if (data === "[DONE]") {
            this.isDone = true;
            return null;
        }
        const number = Number(fields.get("id") ?? 0);
        if (number && number <= this.lastNumber)
            return null;
        this.lastNumber = number || this.lastNumber;
        const parsed = JSON.parse(data);
        const name = fields.get("event") ?? "";
        if (!name && typeof parsed === "object" && parsed !== null && "error" in parsed)
            throw broken(0, parsed);
        return { number, name, data: parsed };
    }
}
