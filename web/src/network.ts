// What a browser knows of its network: a wait ends early when it comes back, a connection when it goes.

type Listening = Pick<EventTarget, "addEventListener" | "removeEventListener">;

function browser(): Listening | null {
  return typeof globalThis.addEventListener === "function" ? globalThis : null;
}

/** Wait, until the time is over, the network has come back, or the signal is aborted. */
export function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const finish = (): void => {
      clearTimeout(timer);
      browser()?.removeEventListener("online", finish);
      signal?.removeEventListener("abort", finish);
      resolve();
    };
    const timer = setTimeout(finish, ms);
    browser()?.addEventListener("online", finish);
    signal?.addEventListener("abort", finish);
    if (signal?.aborted) finish();
  });
}

/** Ends one connection: when its owner says so, when the network goes, or after a silence. */
export class Connection {
  private readonly controller = new AbortController();
  private timer: ReturnType<typeof setTimeout> | undefined;
  private readonly cut = (): void => this.controller.abort();

  constructor(
    private readonly silenceMs: number,
    private readonly owner?: AbortSignal,
  ) {
    owner?.addEventListener("abort", this.cut);
    browser()?.addEventListener("offline", this.cut);
    this.noteLife();
    if (owner?.aborted) this.cut();
  }

  /** For `fetch`. */
  get signal(): AbortSignal {
    return this.controller.signal;
  }

  /** Something came. */
  noteLife(): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(this.cut, this.silenceMs);
  }

  /** Give back what it holds. */
  close(): void {
    clearTimeout(this.timer);
    this.owner?.removeEventListener("abort", this.cut);
    browser()?.removeEventListener("offline", this.cut);
    this.controller.abort();
  }
}
