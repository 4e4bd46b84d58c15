// When to try again: exponential backoff with full jitter, begun anew whenever an event came.

export const RETRIED_STATUSES: ReadonlySet<number> = new Set([429, 502, 503, 504]);

/** How patient a client is. */
export interface RetryPolicy {
  /** Tries in a row that bring no event before it gives up. */
  maxTries: number;
  /** The mean of the first wait is half of it; each further wait may be twice as long. */
  baseMs: number;
  /** No wait is longer. */
  maxWaitMs: number;
}

export const PATIENT: RetryPolicy = { maxTries: 10, baseMs: 200, maxWaitMs: 10_000 };

/** The waits of one stream. */
export class Backoff {
  private tries = 0;

  constructor(
    private readonly policy: RetryPolicy,
    private readonly random: () => number = Math.random,
  ) {}

  /** An event came. */
  noteProgress(): void {
    this.tries = 0;
  }

  /** Milliseconds to wait before the next try; null when it is time to give up. */
  nextWaitMs(atLeastMs = 0): number | null {
    this.tries += 1;
    if (this.tries >= this.policy.maxTries) return null;
    const most = Math.min(this.policy.maxWaitMs, this.policy.baseMs * 2 ** (this.tries - 1));
    return Math.max(atLeastMs, this.random() * most);
  }
}
