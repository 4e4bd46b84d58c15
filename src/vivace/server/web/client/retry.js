// When to try again: exponential backoff with full jitter, begun anew whenever an event came.
export const RETRIED_STATUSES = new Set([429, 502, 503, 504]);
export const PATIENT = { maxTries: 10, baseMs: 200, maxWaitMs: 10_000 };
/** The waits of one stream. */
export class Backoff {
    policy;
    random;
    tries = 0;
    constructor(policy, random = Math.random) {
        this.policy = policy;
        this.random = random;
    }
    /** An event came. */
    noteProgress() {
        this.tries = 0;
    }
    /** Milliseconds to wait before the next try; null when it is time to give up. */
    nextWaitMs(atLeastMs = 0) {
        this.tries += 1;
        if (this.tries >= this.policy.maxTries)
            return null;
        const most = Math.min(this.policy.maxWaitMs, this.policy.baseMs * 2 ** (this.tries - 1));
        return Math.max(atLeastMs, this.random() * most);
    }
}
