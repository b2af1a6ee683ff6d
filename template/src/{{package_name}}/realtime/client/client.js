// @ts-check
/**
 * A WebSocket that comes back: what a browser application imports to talk to this service.
 *
 * ```js
 * import { ReconnectingWebSocket } from "./client.js";
 *
 * const socket = new ReconnectingWebSocket("/ws/rooms/lobby", {
 *   after: 0,
 *   onMessage: (message) => console.log(message.type, message),
 *   onState: ({ status }) => console.log(status),
 * }).open();
 * socket.send({ type: "say", text: "hi" });
 * ```
 *
 * It reconnects with exponential back-off and full jitter, unless the close code says that coming back is of no use; it
 * finds out by pings that a connection is dead, waits while the page is hidden or offline, keeps a bounded number of
 * messages until it is connected again, and asks a service that keeps a history for what it missed. Each new connection
 * has a new state in the service. What this side had sent when a connection broke may be lost.
 *
 * @module
 */

/**
 * - `closed`: it stays away, until `open()` is called
 * - `connecting`: it gets a token, or the handshake is under way
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
 * @property {number} [after] Where the service keeps a history: the `sequence` of the last message that you have, or 0
 *   for all that is kept. From then on each connection asks for what came after the last message it heard. What is kept
 *   no more is told by a message of the type `gap`.
 * @property {() => string | undefined | Promise<string | undefined>} [token] Asked before each connection for the token
 *   to show to a service that wants one: hand out a new one when the old one is about to expire. After 1008, which is
 *   what an expired token gets, it comes back with another token, and stays away with the same. The token travels as a
 *   subprotocol, beside "bearer": a page can set no header, and a URL ends in logs.
 * @property {number} [maxQueue] Messages kept while there is no connection (100). They all go out at once on the next
 *   one, so keep it below the service's MESSAGE_BURST.
 * @property {number} [baseDelay] Milliseconds before the first retry, at most (500); doubled for each further one.
 * @property {number} [maxDelay] Milliseconds before any retry, at most (30,000).
 * @property {number} [pingInterval] Milliseconds between a sign of life and the next ping (20,000); the first ping
 *   goes out with the connection. 0 sends none, as for a listener that takes anything, and so would take it for a message.
 * @property {number} [timeout] Milliseconds without an answer, to the handshake or to a ping, after which a connection
 *   is given up as lost (10,000).
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
const POLICY_VIOLATION = 1008;
const PING = JSON.stringify({ type: "ping" });

/** Milliseconds a connection has to last before the back-off starts afresh: one that is thrown out at once does not. */
const STABLE_AFTER = 5000;

/** @template [Message=any] */
export class ReconnectingWebSocket {
  #path;
  #options;
  /** @type {State} */
  #state = { status: "closed" };
  /** @type {AbortController | undefined} set from `open()` until it stays away */
  #wanted;
  /** @type {object | undefined} the connection that counts; what an older one still says is not heard */
  #attempt;
  /** @type {WebSocket | undefined} */
  #socket;
  /** @type {string[]} */
  #queue = [];
  /** @type {ReturnType<typeof setTimeout> | undefined} until the next try, the next ping, or an answer is overdue */
  #timer;
  #retries = 0;
  #openedAt = Infinity;
  /** @type {number | undefined} when the ping was sent that is not answered yet */
  #pingedAt;
  /** @type {number | undefined} */
  #latency;
  /** @type {number | undefined} */
  #sequence;
  /** @type {string | undefined} the token that was shown last */
  #token;
  #needsAnotherToken = false;

  /**
   * @param {string} path Where to connect: a path or URL, relative to the page; http becomes ws, and https wss.
   * @param {Options<Message>} options
   */
  constructor(
    path,
    {
      onMessage,
      onState = () => {},
      after,
      token = () => undefined,
      maxQueue = 100,
      baseDelay = 500,
      maxDelay = 30_000,
      pingInterval = 20_000,
      timeout = 10_000,
    },
  ) {
    this.#path = path;
    this.#options = { onMessage, onState, token, maxQueue, baseDelay, maxDelay, pingInterval, timeout };
    this.#sequence = after;
  }

  get state() {
    return this.#state;
  }

  /** The milliseconds that the last ping took. */
  get latency() {
    return this.#latency;
  }

  /** The sequence of the last message; keep it, and hand it to the next page as `after`. */
  get sequence() {
    return this.#sequence;
  }

  /** Connect, at once where it waits to come back. Nothing happens where it is connected. */
  open() {
    if (!this.#wanted) {
      this.#wanted = new AbortController();
      const { signal } = this.#wanted;
      document.addEventListener("visibilitychange", this.#look, { signal });
      window.addEventListener("online", this.#look, { signal });
      window.addEventListener("offline", this.#look, { signal });
      this.#forget(); // it may be closing still
    }
    this.#needsAnotherToken = false;
    if (!this.#attempt) this.#connect();
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
    clearTimeout(this.#timer);
    if (this.#socket) this.#socket.close(code, reason);
    else if (this.#state.status !== "closed") this.#stayAway();
  }

  /** Give the connection up as if it were lost, without waiting for the other side, and come back. */
  abandon(reason = "abandoned") {
    if (!this.#attempt) return;
    this.#forget();
    this.#ended(ABNORMAL, reason);
  }

  #forget() {
    clearTimeout(this.#timer);
    this.#attempt = undefined;
    this.#socket?.close();
    this.#socket = undefined;
  }

  async #connect() {
    clearTimeout(this.#timer);
    if (isPaused()) return this.#become("paused");
    const attempt = (this.#attempt = {});
    this.#timer = setTimeout(() => this.abandon("no answer to the handshake"), this.#options.timeout);
    this.#become("connecting");
    /** @type {string | undefined} */
    let token;
    try {
      token = await this.#options.token();
    } catch {
      if (attempt === this.#attempt) this.abandon("no token");
      return;
    }
    if (attempt !== this.#attempt) return;
    if (this.#needsAnotherToken && token === this.#token) return this.#stayAway();
    this.#needsAnotherToken = false;
    this.#token = token;
    const socket = (this.#socket = new WebSocket(this.#address(), token ? ["bearer", token] : []));
    /** @param {(event: any) => void} listener */
    const unlessForgotten = (listener) => (/** @type {Event} */ event) => attempt === this.#attempt && listener(event);
    socket.onopen = unlessForgotten(() => this.#opened(socket));
    socket.onmessage = unlessForgotten(({ data }) => this.#hear(JSON.parse(data)));
    socket.onclose = unlessForgotten(({ code, reason }) => this.#ended(code, reason));
  }

  #address() {
    const url = new URL(this.#path, document.baseURI);
    url.protocol = url.protocol.replace("http", "ws");
    if (this.#sequence !== undefined) url.searchParams.set("after", String(this.#sequence));
    return url;
  }

  /** @param {WebSocket} socket */
  #opened(socket) {
    this.#openedAt = performance.now();
    this.#ping();
    this.#become("open");
    for (const text of this.#queue.splice(0)) socket.send(text);
  }

  /** @param {any} message */
  #hear(message) {
    if (this.#pingedAt !== undefined) {
      this.#awaitNextPing(); // whatever it is, it is a sign of life
      if (message?.type === "pong") {
        this.#latency = performance.now() - this.#pingedAt;
        this.#pingedAt = undefined;
        return;
      }
    }
    if (this.#sequence !== undefined && Number.isInteger(message?.sequence)) this.#sequence = message.sequence;
    this.#options.onMessage(message);
  }

  #awaitNextPing() {
    clearTimeout(this.#timer);
    const next = () => (document.hidden ? this.#awaitNextPing() : this.#ping());
    this.#timer = setTimeout(next, this.#options.pingInterval);
  }

  #ping() {
    clearTimeout(this.#timer);
    if (!this.#options.pingInterval) return;
    this.#pingedAt = performance.now();
    this.#socket?.send(PING);
    this.#timer = setTimeout(() => this.abandon("no answer to a ping"), this.#options.timeout);
  }

  /** @param {number} code @param {string} reason */
  #ended(code, reason) {
    clearTimeout(this.#timer);
    this.#attempt = this.#socket = this.#pingedAt = this.#latency = undefined;
    if (performance.now() - this.#openedAt >= STABLE_AFTER) this.#retries = 0;
    this.#openedAt = Infinity;
    const lastClose = { code, reason };
    this.#needsAnotherToken = code === POLICY_VIOLATION && Boolean(this.#token);
    const comesBack = this.#needsAnotherToken || CLOSE_CODES.get(code)?.reconnect;
    if (!this.#wanted || !comesBack) return this.#stayAway(lastClose);
    const { baseDelay, maxDelay } = this.#options;
    const delay = Math.random() * Math.min(maxDelay, baseDelay * 2 ** this.#retries++); // full jitter
    this.#timer = setTimeout(() => this.#connect(), delay);
    this.#become("waiting", { lastClose, retryAt: Date.now() + delay });
  }

  #stayAway(lastClose = this.#state.lastClose) {
    this.#forget();
    this.#wanted?.abort();
    this.#wanted = undefined;
    this.#queue = [];
    this.#retries = 0;
    this.#become("closed", { lastClose });
  }

  /** The page was shown or hidden, or went on or off line. */
  #look = () => {
    const { status } = this.#state;
    if (status === "paused") {
      if (!isPaused()) this.#connect();
    } else if (status === "open" && !document.hidden) {
      this.#ping(); // much may have happened meanwhile
    }
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
