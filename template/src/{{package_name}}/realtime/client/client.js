// @ts-check
/**
 * A WebSocket that reconnects, for pages, workers, Node and native applications.
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
 * const answer = await socket.request({ type: "say", text: "hi" }, { timeout: 5000 });
 * for await (const token of socket.stream({ type: "ask", prompt: "why?" })) console.log(token);
 * ```
 *
 * It reconnects with exponential backoff and full jitter, unless the close code is final. Its heartbeat finds dead
 * connections. It pauses while the page is hidden or offline, queues a limited number of messages until the next
 * connection, and resumes if the service keeps a history. Each new connection has a new state in the service. Messages
 * that were sent just before a connection was lost may be lost too.
 *
 * `client.d.ts` has the types, and describes each option.
 *
 * @module
 */

/** @typedef {import("./client.js").State} State */

/**
 * A message to send.
 *
 * @typedef {object} Outgoing
 * @property {string} text
 * @property {boolean} [running] Whether it was sent on the current connection and may still be answered.
 */

/**
 * A request or a stream.
 *
 * @typedef {object} CallState
 * @property {boolean | undefined} retry Whether it is sent again on the next connection.
 * @property {any[]} answers The answers that were received, but not yet returned.
 * @property {{ error?: unknown }} [ended] Set when there will be no further answer.
 * @property {(error?: unknown) => void} end
 * @property {() => void} wake
 *
 * @typedef {Outgoing & CallState} Call
 */

/**
 * The close codes (RFC 6455, 7.4), with their meaning, and whether the client reconnects. After a code that is not in
 * the map, the client stays closed: add the codes of your own service, as in `CLOSE_CODES.set(4001, { ... })`.
 *
 * After 1000 the client reconnects, unless it closed the connection itself or the reason is "done": some proxies close
 * idle connections with 1000.
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
  [1014, { meaning: "a proxy cannot reach the service", reconnect: true }],
]);

/** The statuses of a rejected handshake after which another attempt is useless, unless it has another token. */
const FINAL_STATUSES = [400, 401, 403, 404];

const NORMAL = 1000;
const ABNORMAL = 1006;
const POLICY_VIOLATION = 1008;
const UNAUTHORIZED = 401;
const UPGRADE_REQUIRED = 426;
const PING = JSON.stringify({ type: "ping" });

/** `WebSocket.OPEN`. */
const OPEN = 1;

/** The prefix of the `ref` of each request and stream, by which late answers are recognized. */
const REF = "~";

const THIS_MACHINE = /^wss?:\/\/(localhost|127\.[\d.]+|\[::1\])[:/]/;

/** Milliseconds after which a connection counts as stable, and the backoff starts again with the first delay. */
const STABLE_AFTER = 5000;

/** Milliseconds before the expiry of a token in which it is no longer renewed. */
const MIN_RENEWAL = 500;

/** The limit of timers, in milliseconds: 24 days. */
const LONGEST_DELAY = 2 ** 31 - 1;

/**
 * `setTimeout` with a maximum of its own limit, for delays such as `Infinity`.
 *
 * @param {() => void} call
 * @param {number} delay
 */
const later = (call, delay) => setTimeout(call, Math.min(delay, LONGEST_DELAY));

/**
 * Return when a JSON Web Token expires (RFC 7519, 4.1.4), in milliseconds; NaN for any other token.
 *
 * @param {string | undefined} token
 */
function expiryOf(token) {
  try {
    const payload = token?.split(".")[1] ?? "";
    return JSON.parse(atob(payload.replaceAll("-", "+").replaceAll("_", "/"))).exp * 1000;
  } catch {
    return NaN;
  }
}

/** The service answered a request or a stream with an error. The connection stays open. */
export class MessageRejected extends Error {
  name = "MessageRejected";

  /** @param {string} code @param {string} [detail] @param {any} [extra] */
  constructor(code, detail = "", extra) {
    super(detail ? `${code}: ${detail}` : code);
    this.code = code;
    this.detail = detail;
    this.extra = extra;
  }
}

/** The connection ended before the answer, so the service may or may not have handled the message. */
export class ConnectionLost extends Error {
  name = "ConnectionLost";

  /** @param {number} code @param {string} reason */
  constructor(code, reason) {
    super(`${code} ${reason || (CLOSE_CODES.get(code)?.meaning ?? "defined by the service")}`);
    this.code = code;
    this.reason = reason;
  }
}

/** @template [Message=any] */
export class ReconnectingWebSocket {
  #url;
  #defaults;
  #options;
  /** @type {State} */
  #state = { status: "closed" };
  /** @type {AbortController | undefined} set from `open()` until it stays closed */
  #wanted;
  /** @type {object | undefined} the current connection; events of older ones are ignored */
  #attempt;
  /** @type {WebSocket | undefined} */
  #socket;
  /** @type {Outgoing[]} */
  #queue = [];
  /** @type {Map<string, Call>} the requests and streams that somebody waits for, by their `ref` */
  #calls = new Map();
  #lastRef = 0;
  /** @type {Set<{ type: string, listener: (message: any) => void }>} */
  #listeners = new Set();
  /** @type {ReturnType<typeof setTimeout> | undefined} of the next attempt, the next ping, or a time-out */
  #timer;
  #retries = 0;
  #openedAt = Infinity;
  /** Whether nothing was received since the last ping. */
  #isSilent = false;
  /** @type {number[]} when the pings were sent whose answers are awaited */
  #pingedAt = [];
  /** @type {number | undefined} */
  #latency;
  /** @type {number | undefined} */
  #sequence;
  /** @type {string | undefined} the token that was sent last */
  #token;
  #needsAnotherToken = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #renewal;

  /**
   * @param {string | URL} path Where to connect: a path or URL, relative to the page; http becomes ws, and https wss.
   * @param {import("./client.js").Options<Message>} [options]
   */
  constructor(
    path,
    {
      onMessage = () => {},
      onOther = () => {},
      onState = () => {},
      onRefused = () => {},
      base = "",
      query = {},
      defaults = {},
      after,
      token = () => undefined,
      pauseHidden = true,
      maxQueue = 50,
      baseDelay = 500,
      maxDelay = 30_000,
      pingInterval = 20_000,
      timeout = 10_000,
    } = {},
  ) {
    const page = globalThis.document?.baseURI ?? globalThis.location?.href;
    const url = new URL(`${base}${path}`, page);
    for (const [name, value] of Object.entries(query)) {
      for (const each of [value].flat()) if (each !== undefined) url.searchParams.append(name, String(each));
    }
    url.hash = ""; // no connection has a fragment (RFC 6455, 3)
    this.#url = url.href.replace(/^http/, "ws");
    this.#defaults = defaults;
    const calls = { onMessage, onOther, onState, onRefused, token };
    const numbers = { maxQueue, baseDelay, maxDelay, pingInterval, timeout };
    for (const [name, value] of Object.entries(numbers)) {
      if (!(value >= 0)) throw new RangeError(`${name} is ${value}. Fix: use 0 or a positive number`);
    }
    this.#options = { ...calls, ...numbers, pauseHidden };
    this.#sequence = after ?? undefined; // null is what `localStorage` returns
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

  get #isHidden() {
    return this.#options.pauseHidden && globalThis.document?.hidden;
  }

  /** Connect. While waiting to reconnect, reconnect at once; while connected, do nothing. */
  open() {
    if (!this.#wanted) {
      this.#wanted = new AbortController();
      const { signal } = this.#wanted;
      globalThis.document?.addEventListener("visibilitychange", this.#onVisibilityOrNetwork, { signal });
      globalThis.addEventListener?.("online", this.#onVisibilityOrNetwork, { signal });
      globalThis.addEventListener?.("offline", this.#onVisibilityOrNetwork, { signal });
      this.#discard(); // the last one may still be closing
    }
    this.#needsAnotherToken = false;
    if (!this.#attempt) this.#connect();
    return this;
  }

  /**
   * Call a function with each message of a type, before `onMessage`.
   *
   * @param {any} type
   * @param {(message: any) => void} listener
   * @returns A function that removes the listener.
   */
  on(type, listener) {
    const entry = { type, listener };
    this.#listeners.add(entry);
    return () => void this.#listeners.delete(entry);
  }

  /**
   * Send a message as JSON.
   *
   * @param {any} message
   * @returns {"sent" | "queued" | "refused"} Queued until the next connection; refused, and dropped, if the queue is
   *   full or the client is closed.
   */
  send(message) {
    const isObject = typeof message === "object" && message !== null && !Array.isArray(message);
    return this.sendText(JSON.stringify(isObject ? { ...this.#defaults, ...message } : message));
  }

  /**
   * Send text unchanged; otherwise like `send`.
   *
   * @param {string} text
   */
  sendText(text) {
    return this.#post({ text });
  }

  /**
   * Send a message, and wait for its answer. While there is no connection it is queued, like `send`.
   *
   * @param {object} message
   * @param {import("./client.js").RequestOptions} [options]
   * @returns {Promise<any>} The answer; undefined if the service ended a stream without one.
   * @throws {MessageRejected | ConnectionLost} Or the reason of `signal`, or an error with the name "TimeoutError".
   */
  async request(message, options = {}) {
    for await (const answer of this.#exchange(message, options)) return answer;
  }

  /**
   * Send a message, and iterate over its answers. It is sent when the loop begins. Leaving the loop cancels the stream.
   *
   * @param {object} message
   * @param {import("./client.js").StreamOptions} [options]
   * @throws {MessageRejected | ConnectionLost} Or the reason of `signal`.
   */
  stream(message, { signal } = {}) {
    return this.#exchange(message, { signal }, true);
  }

  /**
   * Close, and do not reconnect.
   *
   * @param {number} [code] 1000, or your own code from 3000 to 4999.
   * @param {string} [reason] At most 123 bytes.
   */
  close(code = NORMAL, reason = "") {
    this.#socket?.close(code, reason); // throws if they are invalid, before anything has changed
    this.#wanted?.abort();
    this.#wanted = undefined;
    clearTimeout(this.#timer);
    this.#endCalls(code, reason);
    if (this.#socket) this.#timer = later(() => this.abandon("no answer to the close"), this.#options.timeout);
    else if (this.#state.status !== "closed") this.#stayClosed();
  }

  /** Treat the connection as lost, without waiting for the other side, and reconnect. */
  abandon(reason = "abandoned") {
    if (!this.#attempt) return;
    this.#discard();
    this.#onClose(ABNORMAL, reason);
  }

  /** @param {Outgoing} outgoing */
  #post(outgoing) {
    if (this.#socket?.readyState === OPEN) {
      this.#socket.send(outgoing.text);
      outgoing.running = true;
      return "sent";
    }
    if (!this.#wanted || this.#queue.length >= this.#options.maxQueue) return "refused";
    this.#queue.push(outgoing);
    return "queued";
  }

  /**
   * Send a message with a `ref`, and iterate over the messages with the same `ref`.
   *
   * @param {object} message
   * @param {import("./client.js").RequestOptions} options
   * @param {boolean} [cancels] Whether to send a `cancel` when the iteration stops early.
   * @returns {AsyncGenerator<any, void, undefined>}
   */
  async *#exchange(message, { timeout, signal, retry }, cancels = false) {
    if (signal?.aborted) throw signal.reason;
    const ref = `${REF}${++this.#lastRef}`;
    /** @type {Call} */
    const call = {
      text: JSON.stringify({ ...this.#defaults, ...message, ref }),
      retry,
      answers: [],
      wake() {},
      end(error) {
        call.ended ??= { error };
        call.running = false;
        call.wake();
      },
    };
    const leave = () => {
      if (cancels && call.running) this.#socket?.send(JSON.stringify({ type: "cancel", ref }));
      this.#calls.delete(ref);
      this.#queue = this.#queue.filter((outgoing) => outgoing !== call);
      call.end();
    };
    const late = () => call.end(Object.assign(new Error(`no answer within ${timeout} ms`), { name: "TimeoutError" }));
    const timer = timeout === undefined ? undefined : later(late, timeout);
    signal?.addEventListener("abort", leave);
    this.#calls.set(ref, call);
    try {
      if (this.#post(call) === "refused") {
        throw new ConnectionLost(ABNORMAL, this.#wanted ? "not sent: the queue is full" : "not sent: closed");
      }
      while (true) {
        if (signal?.aborted) throw signal.reason;
        if (call.answers.length) yield call.answers.shift();
        else if (!call.ended) await new Promise((resolve) => (call.wake = () => resolve(undefined)));
        else if (call.ended.error) throw call.ended.error;
        else return;
      }
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", leave);
      leave();
    }
  }

  /** @param {number} code @param {string} reason */
  #endCalls(code, reason) {
    for (const call of this.#calls.values()) call.end(new ConnectionLost(code, reason));
  }

  #discard() {
    clearTimeout(this.#timer);
    clearTimeout(this.#renewal);
    this.#attempt = undefined;
    this.#socket?.close();
    this.#socket = undefined;
  }

  async #connect() {
    clearTimeout(this.#timer);
    if (this.#isHidden) return this.#setState("paused");
    const attempt = (this.#attempt = {});
    this.#timer = later(() => this.abandon("no answer to the handshake"), this.#options.timeout);
    this.#setState("connecting");
    /** @type {string | undefined} */
    let token;
    try {
      token = await this.#options.token();
    } catch (error) {
      if (attempt === this.#attempt) this.abandon(`no token: ${error}`);
      return;
    }
    if (attempt !== this.#attempt) return;
    if (this.#needsAnotherToken && token === this.#token) return this.#stayClosed();
    this.#needsAnotherToken = false;
    this.#token = token;
    /** @type {WebSocket} */
    let socket;
    try {
      socket = this.#socket = new WebSocket(this.#address(), token ? ["bearer", token] : []);
    } catch {
      return this.abandon("the token has characters that no subprotocol may have"); // the error would quote it
    }
    /** @param {(event: any) => void} listener */
    const unlessOutdated = (listener) => (/** @type {Event} */ event) => attempt === this.#attempt && listener(event);
    socket.onopen = unlessOutdated(() => this.#onOpen(socket));
    socket.onmessage = unlessOutdated(({ data }) => this.#receive(data));
    const closed = unlessOutdated(async ({ code, reason }) => {
      this.#socket = undefined;
      const refusal = this.#wanted && this.#openedAt === Infinity ? await this.#askWhy(token) : undefined;
      if (attempt !== this.#attempt) return;
      if (refusal) this.#options.onRefused(refusal);
      if (attempt === this.#attempt) this.#onClose(code, refusal?.detail ?? reason, refusal);
    });
    socket.onclose = closed;
    // `onclose` follows, but not in every Node after a refused handshake; the package ws raises without a listener.
    const unclosed = () => socket === this.#socket && this.#openedAt === Infinity;
    const lost = /** @type {any} */ ({ code: ABNORMAL, reason: "" });
    socket.onerror = () => void setTimeout(() => unclosed() && closed(lost));
  }

  /**
   * Ask the service why it rejected the handshake, because the browser hides the reason: a GET of the same path is
   * answered like the handshake, or with 426 if it would be accepted.
   *
   * @param {string | undefined} token
   * @returns {Promise<import("./client.js").Refusal | undefined>}
   */
  async #askWhy(token) {
    try {
      const answer = await fetch(this.#address().replace(/^ws/, "http"), {
        headers: token ? { authorization: `Bearer ${token}` } : {},
        credentials: "include", // a handshake also sends the cookies
        signal: AbortSignal.timeout(Math.min(Math.ceil(this.#options.timeout), LONGEST_DELAY)),
      });
      if (answer.status < 400 || answer.status === UPGRADE_REQUIRED) return undefined;
      const retryAfter = Number(answer.headers.get("retry-after")); // NaN for a date
      const refusal = { status: answer.status, ...(retryAfter > 0 && { retryAfter }) };
      const text = await answer.text();
      try {
        return { ...refusal, detail: String(JSON.parse(text).detail ?? text) };
      } catch {
        return { ...refusal, detail: text };
      }
    } catch {
      return undefined; // the service is not reachable, or the origin of this page may not connect
    }
  }

  #address() {
    if (this.#sequence === undefined) return this.#url;
    return `${this.#url}${this.#url.includes("?") ? "&" : "?"}after=${this.#sequence}`;
  }

  /** @param {WebSocket} socket */
  #onOpen(socket) {
    clearTimeout(this.#timer);
    this.#openedAt = performance.now();
    this.#ping();
    this.#setState("open");
    if (socket === this.#socket) for (const outgoing of this.#queue.splice(0)) this.#post(outgoing);
    this.#awaitRenewal();
  }

  #awaitRenewal() {
    clearTimeout(this.#renewal);
    const left = expiryOf(this.#token) - Date.now();
    if (left > MIN_RENEWAL) this.#renewal = later(() => this.#renew(), left * 0.9);
  }

  /** Send another token on the open connection. Without it, the service closes it, and the client reconnects. */
  async #renew() {
    const attempt = this.#attempt;
    try {
      const token = await this.#options.token();
      if (attempt === this.#attempt && token && token !== this.#token) {
        await this.request({ type: "authenticate", token }, { timeout: this.#options.timeout });
        this.#token = token;
      }
    } catch {
      // tried again while there is time
    }
    if (attempt === this.#attempt) this.#awaitRenewal();
  }

  /** @param {any} data */
  #receive(data) {
    if (this.#isSilent) this.#awaitNextPing(); // any data shows that the connection is alive
    let message;
    try {
      message = JSON.parse(data);
    } catch {
      return this.#options.onOther(data);
    }
    if (String(message?.ref).startsWith(REF)) return this.#onAnswer(message);
    if (message?.type === "pong" && this.#options.pingInterval) {
      const pingedAt = this.#pingedAt.shift();
      if (pingedAt !== undefined) this.#latency = performance.now() - pingedAt;
      return;
    }
    if (this.#sequence !== undefined && Number.isInteger(message?.sequence)) this.#sequence = message.sequence;
    for (const { type, listener } of this.#listeners) if (type === message?.type) listener(message);
    this.#options.onMessage(message);
  }

  /** @param {any} message */
  #onAnswer({ ref, ...message }) {
    const call = this.#calls.get(ref); // undefined if it was cancelled meanwhile
    if (message.type === "end") call?.end();
    else if (message.type === "error") call?.end(new MessageRejected(message.code, message.detail, message.extra));
    else {
      call?.answers.push(message);
      call?.wake();
    }
  }

  #awaitNextPing() {
    clearTimeout(this.#timer);
    this.#isSilent = false;
    const next = () => (this.#isHidden ? this.#awaitNextPing() : this.#ping());
    this.#timer = later(next, this.#options.pingInterval);
  }

  #ping() {
    if (!this.#options.pingInterval || this.#isSilent) return; // a ping is already in flight
    clearTimeout(this.#timer);
    this.#isSilent = true;
    this.#pingedAt.push(performance.now());
    this.#socket?.send(PING);
    this.#timer = later(() => this.abandon("no answer to a ping"), this.#options.timeout);
  }

  /** @param {number} code @param {string} reason @param {Partial<import("./client.js").Refusal>} [refusal] */
  #onClose(code, reason, { status = 0, retryAfter = 0 } = {}) {
    clearTimeout(this.#timer);
    clearTimeout(this.#renewal);
    this.#attempt = this.#socket = this.#latency = undefined;
    this.#isSilent = false;
    this.#pingedAt = [];
    if (performance.now() - this.#openedAt >= STABLE_AFTER) this.#retries = 0;
    this.#openedAt = Infinity;
    const lastClose = { code, reason };
    this.#needsAnotherToken = (code === POLICY_VIOLATION || status === UNAUTHORIZED) && Boolean(this.#token);
    const byProxy = code === NORMAL && reason !== "done";
    const isFinal = FINAL_STATUSES.includes(status) || !CLOSE_CODES.get(code)?.reconnect;
    const reconnects = this.#needsAnotherToken || byProxy || !isFinal;
    if (!this.#wanted || !reconnects) return this.#stayClosed(lastClose);
    const { baseDelay, maxDelay, maxQueue } = this.#options;
    for (const call of this.#calls.values()) {
      if (!call.running) continue;
      call.running = false;
      if (call.retry && this.#queue.length < maxQueue) this.#queue.push(call);
      else call.end(new ConnectionLost(code, reason));
    }
    const offline = globalThis.navigator?.onLine === false && !THIS_MACHINE.test(this.#url); // the browser may be wrong
    const longest = Math.min(maxDelay, baseDelay * 2 ** this.#retries++);
    const delay = offline ? maxDelay : retryAfter * 1000 + Math.random() * longest; // full jitter
    this.#timer = later(() => this.#connect(), delay);
    this.#setState(offline ? "paused" : "waiting", { lastClose, retryAt: Date.now() + delay });
  }

  #stayClosed(lastClose = this.#state.lastClose) {
    this.#discard();
    this.#wanted?.abort();
    this.#wanted = undefined;
    this.#queue = [];
    this.#endCalls(lastClose?.code ?? ABNORMAL, lastClose?.reason ?? "closed");
    this.#retries = 0;
    this.#setState("closed", { lastClose });
  }

  /**
   * The page was shown or hidden, or went online or offline.
   *
   * @param {Event} event
   */
  #onVisibilityOrNetwork = ({ type }) => {
    if (this.#isHidden) return;
    const { status } = this.#state;
    if (status === "open") this.#ping(); // the connection may have been lost meanwhile
    else if (status === "paused" && type !== "offline") this.#connect();
  };

  /** @param {State["status"]} status @param {Partial<State>} [more] */
  #setState(status, more) {
    this.#state = { lastClose: this.#state.lastClose, ...more, status };
    this.#options.onState(this.#state);
  }
}
