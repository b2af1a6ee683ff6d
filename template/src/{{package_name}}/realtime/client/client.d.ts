/** The types of `client.js`, and the reference of its options. Copy both files together. */

/**
 * - `closed`: the client does not reconnect until `open()` is called
 * - `connecting`: it gets a token, or the handshake is in progress
 * - `open`: it sends and receives
 * - `waiting`: it reconnects at `retryAt`
 * - `paused`: it reconnects when the page is visible and online; if the browser reports "offline", it still tries at
 *   `retryAt`, because browsers can be wrong
 */
export type Status = "closed" | "connecting" | "open" | "waiting" | "paused";

export interface State {
  status: Status;
  /** The time of the next attempt, in milliseconds as of `Date.now()`. */
  retryAt?: number | undefined;
  /** How the last connection was closed; a new object for each. */
  lastClose?: { code: number; reason: string } | undefined;
}

/** The reason for which the service rejected a handshake. */
export interface Refusal {
  /** The HTTP status: 400, 401, 403 or 404, after which the client stays closed, or another, such as 429 or 503. */
  status: number;
  /** The text of the service, for people. */
  detail: string;
  /**
   * The seconds of the header `Retry-After`, if a service or a proxy sent one; the client waits for them, and then for
   * the delay before the attempt. An answer of another origin must expose the header.
   */
  retryAfter?: number | undefined;
}

export interface Options<Message = any> {
  /**
   * Called with each message, decoded from JSON, that is not an answer to `request` or `stream`. While the client sends
   * pings, every message of the type `pong` is the answer to a ping.
   */
  onMessage?: ((message: Message) => void) | undefined;
  /** Called with data that is not JSON, unchanged: text, or a Blob. */
  onOther?: ((data: any) => void) | undefined;
  /** Called with each change. Messages that it sends when the status is `open` are sent before the queue. */
  onState?: ((state: State) => void) | undefined;
  /**
   * Called when the service rejects the handshake, which a browser reports only as 1006. The client sends a GET to the
   * same path for the reason; without an answer, as for a page whose origin may not connect, this is not called. After
   * 400, 401, 403 and 404 the client stays closed, unless `token` returns another token after 401.
   */
  onRefused?: ((refusal: Refusal) => void) | undefined;
  /** The prefix of the path: an origin such as "https://example.com", or "/chat" behind a proxy. */
  base?: string | undefined;
  /** Parameters of the query. `undefined` omits a parameter, and an array repeats it. */
  query?: Record<string, unknown> | undefined;
  /** Fields that are added to each sent message unless it has them, such as its `type`. */
  defaults?: object | undefined;
  /**
   * If the service keeps a history: the `sequence` of the last message that you have, or 0 for all messages that are
   * kept. From then on, each connection resumes after the last received message. A message of the type `gap` reports
   * missing messages.
   */
  after?: number | undefined;
  /**
   * Returns a token, if the service requires one. Called before each connection and, on an open connection, in the last
   * tenth of the lifetime of a token with an expiry time: return a new token when the old one is about to expire. After
   * 1008, the close code for an expired token, the client reconnects with another token, and stays closed if the token
   * is the same. The token is sent as a subprotocol beside "bearer", because a page cannot set headers, and URLs are
   * written to logs.
   */
  token?: (() => string | undefined | Promise<string | undefined>) | undefined;
  /**
   * Whether the client neither reconnects nor sends pings while the page is hidden (true). With `false` it stays
   * connected as far as the browser allows: browsers run the timers of hidden pages less often.
   */
  pauseHidden?: boolean | undefined;
  /**
   * Messages and requests queued while there is no connection (50). The next connection sends them all at once, so keep
   * the number well below the service's MESSAGE_BURST.
   */
  maxQueue?: number | undefined;
  /** The longest delay before the first attempt to reconnect, in milliseconds (500). It doubles with each attempt. */
  baseDelay?: number | undefined;
  /** The longest delay before any attempt, in milliseconds (30,000), unless the service sends `Retry-After`. */
  maxDelay?: number | undefined;
  /**
   * Milliseconds until the next ping (20,000); the first ping is sent at once. 0 sends no pings, for a listener
   * that has its own `ping` or `pong`, or whose messages are not JSON.
   */
  pingInterval?: number | undefined;
  /**
   * Milliseconds to wait for the answer to the handshake, to a ping or to a close, before the connection is abandoned
   * (10,000).
   */
  timeout?: number | undefined;
}

export interface RequestOptions {
  /** Milliseconds to wait for the answer; without it, as long as the connection lasts. */
  timeout?: number | undefined;
  /** Cancels the request. */
  signal?: AbortSignal | undefined;
  /**
   * If the connection is lost before the answer, send the message again on the next one. The service may then handle it
   * twice.
   */
  retry?: boolean | undefined;
}

export interface StreamOptions {
  /** Cancels the stream. */
  signal?: AbortSignal | undefined;
}

/** A message and its answer: `(message: Rename) => Renamed`. Several are a union: `A | B`. */
export type Call = (message: any) => unknown;

/** The messages that have an answer: objects, because a `ref` is added. */
export type Question<Calls extends Call> = Exclude<Parameters<Calls>[0] & object, readonly unknown[]>;

/** The answer of the service to a message. */
export type Answer<Calls extends Call, Asked> = Calls extends (message: infer Each) => infer Reply
  ? Asked extends Each
    ? Reply
    : never
  : never;

/** The types of messages that `on` accepts. */
export type TypeOf<Message> = Message extends { type: infer Type extends string } ? Type : never;

/** A message whose tag may be left out, because `defaults` has it. */
export type Untagged<Message, Tag extends keyof Message> = Omit<Message, Tag> & Partial<Pick<Message, Tag>>;

/** A message of a channel, which has a sequence if the client uses `after`. */
export type Sequenced<Message> = Message & { sequence?: number | undefined };

/**
 * A WebSocket that reconnects.
 *
 * @typeParam Message The messages that `onMessage` and `on` receive.
 * @typeParam Calls The messages of `request`, with their answers.
 * @typeParam Outgoing The messages that `send` takes.
 * @typeParam Streams The messages of `stream`, with their answers; by default the same as `Calls`.
 */
export class ReconnectingWebSocket<
  Message = any,
  Calls extends Call = (message: any) => any,
  Outgoing = unknown,
  Streams extends Call = Calls,
> {
  /**
   * @param path The path or URL to connect to, relative to the page; http becomes ws, and https becomes wss. Outside a
   *   page, as in Node, it must be a complete URL.
   * @throws {RangeError} A number of the options is NaN or negative.
   */
  constructor(path: string | URL, options?: Options<Message>);

  get state(): State;

  /** The round-trip time of the last ping, in milliseconds. */
  get latency(): number | undefined;

  /** The sequence of the last message. Another page resumes there with `after`. */
  get sequence(): number | undefined;

  /** Connect. While waiting to reconnect, reconnect at once; while connected, do nothing. */
  open(): this;

  /**
   * Call a function with each message of a type, before `onMessage`.
   *
   * @returns A function that removes the listener.
   */
  on<Type extends TypeOf<Message>>(type: Type, listener: (message: Extract<Message, { type: Type }>) => void): () => void;

  /**
   * Send a message as JSON.
   *
   * @returns "queued" until the next connection; "refused", and dropped, if the queue is full or the client is closed.
   */
  send(message: Outgoing): "sent" | "queued" | "refused";

  /** Send text unchanged; otherwise like `send`. */
  sendText(text: string): "sent" | "queued" | "refused";

  /**
   * Send a message, and wait for its answer. While there is no connection it is queued, like `send`.
   *
   * @throws {MessageRejected} The service answered with an error.
   * @throws {ConnectionLost} The connection ended before the answer, or the message could not be queued.
   * @throws The reason of `signal` when it aborts; an error with the name "TimeoutError" after `timeout`.
   */
  request<Asked extends Question<Calls>>(message: Asked, options?: RequestOptions): Promise<Answer<Calls, Asked>>;

  /**
   * Send a message, and iterate over its answers. It is sent when the loop begins; leaving the loop cancels the stream.
   *
   * @throws Like `request`; an error may follow some answers.
   */
  stream<Asked extends Question<Streams>>(
    message: Asked,
    options?: StreamOptions,
  ): AsyncGenerator<Answer<Streams, Asked>, void, undefined>;

  /**
   * Close, and do not reconnect.
   *
   * @param code 1000, or your own code from 3000 to 4999.
   * @param reason At most 123 bytes.
   * @throws The error of `WebSocket.close` if they are invalid; the connection stays open.
   */
  close(code?: number, reason?: string): void;

  /** Treat the connection as lost, without waiting for the other side, and reconnect. */
  abandon(reason?: string): void;
}

/** The service answered a request or a stream with an error. The connection stays open. */
export class MessageRejected extends Error {
  constructor(code: string, detail?: string, extra?: unknown);
  /** The error for programs: `invalid_message`, or your own code. */
  code: string;
  /** The error for people. */
  detail: string;
  /** Further data of the service. */
  extra: any;
}

/** The connection ended before the answer, so the service may or may not have handled the message. */
export class ConnectionLost extends Error {
  constructor(code: number, reason: string);
  /** The close code. */
  code: number;
  reason: string;
}

/**
 * The close codes (RFC 6455, 7.4), with their meaning, and whether the client reconnects. After a code that is not in
 * the map, the client stays closed: add the codes of your own service, as in `CLOSE_CODES.set(4001, { ... })`.
 *
 * After 1000 the client reconnects, unless it closed the connection itself or the reason is "done": some proxies close
 * idle connections with 1000.
 */
export const CLOSE_CODES: Map<number, { meaning: string; reconnect: boolean }>;
