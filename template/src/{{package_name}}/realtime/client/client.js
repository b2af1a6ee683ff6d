// @ts-check
/**
 * A WebSocket that reconnects, for browser applications.
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
 * It reconnects with exponential backoff and full jitter, unless the close code is final. Its heartbeat finds dead
 * connections. It pauses while the page is hidden or offline, queues a bounded number of messages until it is connected
 * again, and resumes where the service keeps a history. Each new connection has a new state in the service. Messages
 * that were sent just before a connection was lost may be lost too.
 *
 * @module
 */

/**
 * - `closed`: it does not reconnect until `open()` is called
 * - `connecting`: it asks for a token, or the handshake is under way
 * - `open`: it sends and receives
 * - `waiting`: it reconnects at `retryAt`
 * - `paused`: it reconnects when the page is visible and online
 *
 * @typedef {"closed" | "connecting" | "open" | "waiting" | "paused"} Status
 */

/**
 * @typedef {object} State
 * @property {Status} status
 * @property {number} [retryAt] While waiting: when it reconnects, in milliseconds as of `Date.now()`.
 * @property {{ code: number, reason: string }} [lastClose] How the last connection was closed; a new object for each.
 */

/**
 * @template Message
 * @typedef {object} Options
 * @property {(message: Message) => void} onMessage Called with each message, decoded from JSON.
 * @property {(state: State) => void} [onState] Called with each change. What it sends when the status is `open` goes
 *   out before the queue.
 * @property {number} [after] Where the service keeps a history: the `sequence` of the last message that you have, or 0
 *   for all that is kept. From then on, each connection resumes after the last message that was received. A message of
 *   the type `gap` tells that messages are missing.
 * @property {() => string | undefined | Promise<string | undefined>} [token] Called before each connection, where the
 *   service asks for a token: return a new one when the old one is about to expire. After 1008, the close code for an
 *   expired token, it reconnects with another token, and stays closed if the token is the same. The token is sent as a
 *   subprotocol beside "bearer": a page can set no header, and a URL ends up in logs.
 * @property {number} [maxQueue] Messages queued while there is no connection (100). They are sent at once on the next
 *   one, so keep it below the service's MESSAGE_BURST.
 * @property {number} [baseDelay] The longest delay before the first attempt to reconnect, in milliseconds (500). It
 *   doubles with each further attempt.
 * @property {number} [maxDelay] The longest delay before any attempt, in milliseconds (30,000).
 * @property {number} [pingInterval] Milliseconds without a message until it sends a ping (20,000); the first one is
 *   sent at once. 0 sends none, for a listener that would take it for a message of its own.
 * @property {number} [timeout] Milliseconds to wait for the answer to the handshake or to a ping, before the connection
 *   is abandoned (10,000).
 */

/**
 * The close codes (RFC 6455, 7.4): what each means, and whether the client reconnects. After a code that is not in the
 * map it stays closed: add the codes of your own service, as in `CLOSE_CODES.set(4001, { ... })`.
 *
 * After 1000 it reconnects, unless it closed itself or the reason is "done": some proxies close idle connections with
 * 1000.
 *
 * @type {Map<number, { meaning: string, reconnect: boolean }>}
 */
export const CLOSE_CODES = new Map([
  [1000, { meaning: "done", reconnect: false }],
  [1001, { meaning: "the other end or a proxy goes away", reconnect: true }],
  [1002, { meaning: "protocol error", reconnect: false }],
  [1003, { meaning: "wrong kind of frame", reconnect: false }],
  [1005, { meaning: "closed without a code", reconnect: true }],
  [1006, { meaning: "connection lost or rejected", reconnect: true }],
  [1007, { meaning: "text that is not UTF-8", reconnect: false }],
  [1008, { meaning: "against the policy of the service", reconnect: false }],
  [1009, { meaning: "message too big", reconnect: false }],
  [1011, { meaning: "error in the service", reconnect: true }],
  [1012, { meaning: "the service restarts", reconnect: true }],
  [1013, { meaning: "full, or too slow: try again later", reconnect: true }],
]);

const NORMAL = 1000;
const ABNORMAL = 1006;
const POLICY_VIOLATION = 1008;
const PING = JSON.stringify({ type: "ping" });

/** Milliseconds after which a connection counts as stable, and the backoff starts again from the first delay. */
const STABLE_AFTER = 5000;

/** @template [Message=any] */
export class ReconnectingWebSocket {
  #path;
  #options;
  /** @type {State} */
  #state = { status: "closed" };
  /** @type {AbortController | undefined} set from `open()` until it stays closed */
  #wanted;
  /** @type {object | undefined} the current connection; events of older ones are ignored */
  #attempt;
  /** @type {WebSocket | undefined} */
  #socket;
  /** @type {string[]} */
  #queue = [];
  /** @type {ReturnType<typeof setTimeout> | undefined} of the next attempt, the next ping, or a time-out */
  #timer;
  #retries = 0;
  #openedAt = Infinity;
  /** @type {number | undefined} when the ping was sent whose answer is awaited */
  #pingedAt;
  /** @type {number | undefined} */
  #latency;
  /** @type {number | undefined} */
  #sequence;
  /** @type {string | undefined} the token that was sent last */
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

  /** The round-trip time of the last ping, in milliseconds. */
  get latency() {
    return this.#latency;
  }

  /** The sequence of the last message. Another page resumes there with `after`. */
  get sequence() {
    return this.#sequence;
  }

  /** Connect; where it waits to reconnect, do so at once. Nothing happens while it is connected. */
  open() {
    if (!this.#wanted) {
      this.#wanted = new AbortController();
      const { signal } = this.#wanted;
      document.addEventListener("visibilitychange", this.#onVisibilityOrNetwork, { signal });
      window.addEventListener("online", this.#onVisibilityOrNetwork, { signal });
      window.addEventListener("offline", this.#onVisibilityOrNetwork, { signal });
      this.#discard(); // the last one may still be closing
    }
    this.#needsAnotherToken = false;
    if (!this.#attempt) this.#connect();
    return this;
  }

  /**
   * Send a message as JSON.
   *
   * @param {unknown} message
   * @returns {"sent" | "queued" | "refused"} Queued until it is connected again; refused, and dropped, if the queue is
   *   full or it is closed.
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
   * Close, and do not reconnect.
   *
   * @param {number} [code] 1000, or one of your own from 3000 to 4999.
   * @param {string} [reason] At most 123 bytes.
   */
  close(code = NORMAL, reason = "") {
    this.#wanted?.abort();
    this.#wanted = undefined;
    clearTimeout(this.#timer);
    if (this.#socket) this.#socket.close(code, reason);
    else if (this.#state.status !== "closed") this.#stayClosed();
  }

  /** Treat the connection as lost, without waiting for the other side, and reconnect. */
  abandon(reason = "abandoned") {
    if (!this.#attempt) return;
    this.#discard();
    this.#onClose(ABNORMAL, reason);
  }

  #discard() {
    clearTimeout(this.#timer);
    this.#attempt = undefined;
    this.#socket?.close();
    this.#socket = undefined;
  }

  async #connect() {
    clearTimeout(this.#timer);
    if (isPaused()) return this.#setState("paused");
    const attempt = (this.#attempt = {});
    this.#timer = setTimeout(() => this.abandon("no answer to the handshake"), this.#options.timeout);
    this.#setState("connecting");
    /** @type {string | undefined} */
    let token;
    try {
      token = await this.#options.token();
    } catch {
      if (attempt === this.#attempt) this.abandon("no token");
      return;
    }
    if (attempt !== this.#attempt) return;
    if (this.#needsAnotherToken && token === this.#token) return this.#stayClosed();
    this.#needsAnotherToken = false;
    this.#token = token;
    const socket = (this.#socket = new WebSocket(this.#address(), token ? ["bearer", token] : []));
    /** @param {(event: any) => void} listener */
    const unlessOutdated = (listener) => (/** @type {Event} */ event) => attempt === this.#attempt && listener(event);
    socket.onopen = unlessOutdated(() => this.#onOpen(socket));
    socket.onmessage = unlessOutdated(({ data }) => this.#receive(JSON.parse(data)));
    socket.onclose = unlessOutdated(({ code, reason }) => this.#onClose(code, reason));
  }

  #address() {
    const url = new URL(this.#path, document.baseURI);
    url.protocol = url.protocol.replace("http", "ws");
    if (this.#sequence !== undefined) url.searchParams.set("after", String(this.#sequence));
    return url;
  }

  /** @param {WebSocket} socket */
  #onOpen(socket) {
    this.#openedAt = performance.now();
    this.#ping();
    this.#setState("open");
    for (const text of this.#queue.splice(0)) socket.send(text);
  }

  /** @param {any} message */
  #receive(message) {
    if (this.#pingedAt !== undefined) {
      this.#awaitNextPing(); // any message shows that the connection is alive
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
  #onClose(code, reason) {
    clearTimeout(this.#timer);
    this.#attempt = this.#socket = this.#pingedAt = this.#latency = undefined;
    if (performance.now() - this.#openedAt >= STABLE_AFTER) this.#retries = 0;
    this.#openedAt = Infinity;
    const lastClose = { code, reason };
    this.#needsAnotherToken = code === POLICY_VIOLATION && Boolean(this.#token);
    const byProxy = code === NORMAL && reason !== "done";
    const reconnects = this.#needsAnotherToken || byProxy || CLOSE_CODES.get(code)?.reconnect;
    if (!this.#wanted || !reconnects) return this.#stayClosed(lastClose);
    const { baseDelay, maxDelay } = this.#options;
    const delay = Math.random() * Math.min(maxDelay, baseDelay * 2 ** this.#retries++); // full jitter
    this.#timer = setTimeout(() => this.#connect(), delay);
    this.#setState("waiting", { lastClose, retryAt: Date.now() + delay });
  }

  #stayClosed(lastClose = this.#state.lastClose) {
    this.#discard();
    this.#wanted?.abort();
    this.#wanted = undefined;
    this.#queue = [];
    this.#retries = 0;
    this.#setState("closed", { lastClose });
  }

  /** The page was shown or hidden, or went online or offline. */
  #onVisibilityOrNetwork = () => {
    const { status } = this.#state;
    if (status === "paused") {
      if (!isPaused()) this.#connect();
    } else if (status === "open" && !document.hidden) {
      this.#ping(); // the connection may have been lost meanwhile
    }
  };

  /** @param {Status} status @param {Partial<State>} [more] */
  #setState(status, more) {
    this.#state = { lastClose: this.#state.lastClose, ...more, status };
    this.#options.onState(this.#state);
  }
}

/** Say whether reconnecting can wait: the page is hidden, or offline and the service is not on this machine. */
function isPaused() {
  const local = /^(localhost|127\..*|\[::1\])$/.test(location.hostname);
  return document.hidden || !(navigator.onLine || local);
}
