// @ts-check
/**
 * A WebSocket that comes back: what a browser application imports to talk to this service.
 *
 * ```js
 * import { ReconnectingWebSocket } from "./client.js";
 *
 * const socket = new ReconnectingWebSocket("/ws/echo", {
 *   onMessage: (message) => console.log(message.type, message),
 *   onState: ({ status }) => console.log(status),
 * }).open();
 * socket.send({ type: "say", text: "hi" });
 * ```
 *
 * It reconnects with exponential back-off and full jitter, unless the close code says that coming back is of no use;
 * it waits while the page is hidden or offline, and keeps a bounded number of messages until it is connected again.
 * What was on its way when a connection broke is lost, and each new connection has a new state in the service.
 *
 * @module
 */

/**
 * - `closed`: it stays away, until `open()` is called
 * - `connecting`: the handshake is under way
 * - `open`: messages flow
 * - `waiting`: it comes back at `retryAt`
 * - `paused`: it comes back when the page is visible and online
 *
 * @typedef {"closed" | "connecting" | "open" | "waiting" | "paused"} Status
 */

/**
 * @typedef {object} State
 * @property {Status} status
 * @property {number} [retryAt] While waiting: when it comes back, in milliseconds as of `Date.now()`.
 * @property {{ code: number, reason: string }} [lastClose] How the last connection ended; a new object for each.
 */

/**
 * @template Message
 * @typedef {object} Options
 * @property {(message: Message) => void} onMessage Called with each message, decoded from JSON.
 * @property {(state: State) => void} [onState] Called with each change. What it sends when the status is `open` goes
 *   out before the queue.
 * @property {() => string | undefined} [token] Asked before each connection for the token to show to a service that wants
 *   one. It travels as a subprotocol, beside "bearer": a page can set no header, and a URL ends in logs.
 * @property {number} [maxQueue] Messages kept while there is no connection (100). They all go out at once on the next
 *   one, so keep it below the service's MESSAGE_BURST.
 * @property {number} [baseDelay] Milliseconds before the first retry, at most (500); doubled for each further one.
 * @property {number} [maxDelay] Milliseconds before any retry, at most (30,000).
 */

/**
 * What the close codes mean (RFC 6455, 7.4), and whether to come back after them. After a code that is not in here, the
 * client stays away: set the codes of your own service, as in `CLOSE_CODES.set(4001, { ... })`.
 *
 * @type {Map<number, { meaning: string, reconnect: boolean }>}
 */
export const CLOSE_CODES = new Map([
  [1000, { meaning: "done, as wanted", reconnect: false }],
  [1001, { meaning: "leaving for good", reconnect: false }],
  [1002, { meaning: "protocol error", reconnect: false }],
  [1003, { meaning: "wrong kind of frame", reconnect: false }],
  [1005, { meaning: "closed without a code", reconnect: true }],
  [1006, { meaning: "connection lost or refused", reconnect: true }],
  [1007, { meaning: "text that is not UTF-8", reconnect: false }],
  [1008, { meaning: "against the policy of the service", reconnect: false }],
  [1009, { meaning: "message too big", reconnect: false }],
  [1011, { meaning: "error in the service", reconnect: true }],
  [1012, { meaning: "the service restarts", reconnect: true }],
  [1013, { meaning: "full, or too slow: try again later", reconnect: true }],
]);

const ABNORMAL = 1006;

/** Milliseconds a connection has to last before the back-off starts afresh: one that is thrown out at once does not. */
const STABLE_AFTER = 5000;

/** @template [Message=any] */
export class ReconnectingWebSocket {
  /** @type {WebSocket | undefined} */
  #socket;
  /** @type {string[]} */
  #queue = [];
  /** @type {State} */
  #state = { status: "closed" };
  /** @type {AbortController | undefined} set from `open()` until it stays away */
  #wanted;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #retries = 0;
  #openedAt = Infinity;
  #url;
  #options;

  /**
   * @param {string} path Where to connect: a path or URL, relative to the page; http becomes ws, and https wss.
   * @param {Options<Message>} options
   */
  constructor(path, options) {
    this.#url = new URL(path, document.baseURI);
    this.#url.protocol = this.#url.protocol.replace("http", "ws");
    this.#options = { onState: () => {}, token: () => undefined, maxQueue: 100, baseDelay: 500, maxDelay: 30_000, ...options };
  }

  get state() {
    return this.#state;
  }

  /** Connect, at once where it waits to come back. Nothing happens where it is connected. */
  open() {
    if (!this.#wanted) {
      this.#wanted = new AbortController();
      const { signal } = this.#wanted;
      document.addEventListener("visibilitychange", this.#resume, { signal });
      window.addEventListener("online", this.#resume, { signal });
    }
    if (this.#socket?.readyState === WebSocket.CLOSING) this.#forget();
    if (!this.#socket) this.#connect();
    return this;
  }

  /**
   * Send a message as JSON.
   *
   * @param {unknown} message
   * @returns {"sent" | "queued" | "refused"} Queued where it is about to come back; refused, and lost, where the queue
   *   is full or it stays away.
   */
  send(message) {
    return this.sendText(JSON.stringify(message));
  }

  /**
   * Send text as it is; otherwise like `send`.
   *
   * @param {string} text
   */
  sendText(text) {
    if (this.#socket?.readyState === WebSocket.OPEN) {
      this.#socket.send(text);
      return "sent";
    }
    if (!this.#wanted || this.#queue.length >= this.#options.maxQueue) return "refused";
    this.#queue.push(text);
    return "queued";
  }

  /**
   * Close, and stay away.
   *
   * @param {number} [code] 1000, or one of your own from 3000 to 4999.
   * @param {string} [reason] At most 123 bytes.
   */
  close(code = 1000, reason = "") {
    this.#wanted?.abort();
    this.#wanted = undefined;
    if (this.#socket) this.#socket.close(code, reason);
    else if (this.#state.status !== "closed") this.#stayAway();
  }

  /** Give the connection up as if it were lost, without waiting for the other side, and come back. */
  abandon() {
    if (!this.#socket) return;
    this.#forget();
    this.#ended(ABNORMAL, "abandoned");
  }

  #forget() {
    if (!this.#socket) return;
    this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket.close();
    this.#socket = undefined;
  }

  #connect() {
    clearTimeout(this.#timer);
    if (isPaused()) return this.#become("paused");
    const token = this.#options.token();
    const socket = new WebSocket(this.#url, token ? ["bearer", token] : []);
    socket.onopen = () => {
      this.#openedAt = performance.now();
      this.#become("open");
      for (const text of this.#queue.splice(0)) socket.send(text);
    };
    socket.onmessage = (event) => this.#options.onMessage(JSON.parse(event.data));
    socket.onclose = (event) => this.#ended(event.code, event.reason);
    this.#socket = socket;
    this.#become("connecting");
  }

  /** @param {number} code @param {string} reason */
  #ended(code, reason) {
    this.#socket = undefined;
    if (performance.now() - this.#openedAt >= STABLE_AFTER) this.#retries = 0;
    this.#openedAt = Infinity;
    const lastClose = { code, reason };
    if (!this.#wanted || !CLOSE_CODES.get(code)?.reconnect) return this.#stayAway(lastClose);
    const { baseDelay, maxDelay } = this.#options;
    const delay = Math.random() * Math.min(maxDelay, baseDelay * 2 ** this.#retries++); // full jitter
    this.#timer = setTimeout(() => this.#connect(), delay);
    this.#become("waiting", { lastClose, retryAt: Date.now() + delay });
  }

  #stayAway(lastClose = this.#state.lastClose) {
    clearTimeout(this.#timer);
    this.#wanted?.abort();
    this.#wanted = undefined;
    this.#queue = [];
    this.#retries = 0;
    this.#become("closed", { lastClose });
  }

  #resume = () => {
    if (this.#state.status === "paused" && !isPaused()) this.#connect();
  };

  /** @param {Status} status @param {Partial<State>} [more] */
  #become(status, more) {
    this.#state = { lastClose: this.#state.lastClose, ...more, status };
    this.#options.onState(this.#state);
  }
}

/** Say whether coming back can wait: nobody looks, or there is no network (which this very machine does not need). */
function isPaused() {
  const local = /^(localhost|127\..*|\[::1\])$/.test(location.hostname);
  return document.hidden || !(navigator.onLine || local);
}
