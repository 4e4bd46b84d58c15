// What a browser knows of its network: a wait ends early when it comes back, a connection when it goes.
function browser() {
    return typeof globalThis.addEventListener === "function" ? globalThis : null;
}
/** Wait, until the time is over, the network has come back, or the signal is aborted. */
export function pause(ms, signal) {
    return new Promise((resolve) => {
        const finish = () => {
            clearTimeout(timer);
            browser()?.removeEventListener("online", finish);
            signal?.removeEventListener("abort", finish);
            resolve();
        };
        const timer = setTimeout(finish, ms);
        browser()?.addEventListener("online", finish);
        signal?.addEventListener("abort", finish);
        if (signal?.aborted)
            finish();
    });
}
/** Ends one connection: when its owner says so, when the network goes, or after a silence. */
export class Connection {
    silenceMs;
    owner;
    controller = new AbortController();
    timer;
    cut = () => this.controller.abort();
    constructor(silenceMs, owner) {
        this.silenceMs = silenceMs;
        this.owner = owner;
        owner?.addEventListener("abort", this.cut);
        browser()?.addEventListener("offline", this.cut);
        this.noteLife();
        if (owner?.aborted)
            this.cut();
    }
    /** For `fetch`. */
    get signal() {
        return this.controller.signal;
    }
    /** Something came. */
    noteLife() {
        clearTimeout(this.timer);
        this.timer = setTimeout(this.cut, this.silenceMs);
    }
    /** Give back what it holds. */
    close() {
        clearTimeout(this.timer);
        this.owner?.removeEventListener("abort", this.cut);
        browser()?.removeEventListener("offline", this.cut);
        this.controller.abort();
    }
}
