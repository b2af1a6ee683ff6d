/** The types of `client.js`, and the reference of its options. Copy both files together. */

/**
 * - `closed`: it does not reconnect until `open()` is called
 * - `connecting`: it asks for a token, or the handshake is under way
 * - `open`: it sends and receives
 * - `waiting`: it reconnects at `retryAt`
 * - `paused`: it reconnects when the page is visible and online; where the browser says "offline", it tries at `retryAt`
 *   all the same, because that can be wrong
 */
export type Status = "closed" | "connecting" | "open" | "waiting" | "paused";

export interface State {
  status: Status;
  /** When it reconnects, in milliseconds as of `Date.now()`. */
  retryAt?: number | undefined;
  /** How the last connection was closed; a new object for each. */
  lastClose?: { code: number; reason: string } | undefined;
}

/** Why the service refused a handshake. */
export interface Refusal {
  /** The HTTP status: 401, 403 or 404, after which it stays closed, or another, such as 429 or 503. */
  status: number;
  /** What the service says, for people. */
  detail: string;
}

export interface Options<Message = any> {
  /**
   * Called with each message, decoded from JSON, that is not an answer to `request` or `stream`. While it sends pings,
   * every message of the type `pong` is the answer to one.
   */
  onMessage?: ((message: Message) => void) | undefined;
  /** Called with data that is not JSON, as it came: text, or a Blob. */
  onOther?: ((data: any) => void) | undefined;
  /** Called with each change. What it sends when the status is `open` goes out before the queue. */
  onState?: ((state: State) => void) | undefined;
  /**
   * Called where the service refuses the handshake, which a browser shows as 1006 only. The client asks by a GET of the
   * same path; where that tells nothing, as to a page of an origin that may not connect, it is not called. After 401, 403
   * and 404 the client stays closed, unless `token` has another token after 401.
   */
  onRefused?: ((refusal: Refusal) => void) | undefined;
  /** What comes before the path: an origin such as "https://example.com", or "/chat" behind a proxy. */
  base?: string | undefined;
  /** Parameters of the query. `undefined` leaves one out, and an array repeats it. */
  query?: Record<string, unknown> | undefined;
  /** Fields of each message that is sent, unless it has them itself, such as its `type`. */
  defaults?: object | undefined;
  /**
   * Where the service keeps a history: the `sequence` of the last message that you have, or 0 for all that is kept. From
   * then on, each connection resumes after the last message that was received. A message of the type `gap` tells that
   * messages are missing.
   */
  after?: number | undefined;
  /**
   * Called before each connection, where the service asks for a token, and on an open one in the last tenth of the time
   * of a token that tells when it expires, which another one renews: return a new one when the old one is about to
   * expire. After 1008, the close code for an expired token, it reconnects with another token, and stays closed if the
   * token is the same. The token is sent as a subprotocol beside "bearer": a page can set no header, and a URL ends up
   * in logs.
   */
  token?: (() => string | undefined | Promise<string | undefined>) | undefined;
  /**
   * Whether it waits to reconnect, and sends no pings, while the page is hidden (true). With `false` it stays connected
   * as well as the browser allows, which runs the timers of hidden pages less often.
   */
  pauseHidden?: boolean | undefined;
  /**
   * Messages and requests queued while there is no connection (50). They are sent at once on the next one, so keep it
   * well below the service's MESSAGE_BURST.
   */
  maxQueue?: number | undefined;
  /** The longest delay before the first attempt to reconnect, in milliseconds (500). It doubles with each attempt. */
  baseDelay?: number | undefined;
  /** The longest delay before any attempt, in milliseconds (30,000). */
  maxDelay?: number | undefined;
  /**
   * Milliseconds until the next ping (20,000); the first one is sent at once. 0 sends none, for a listener whose own
   * messages have a `ping` or a `pong`, or are not JSON.
   */
  pingInterval?: number | undefined;
  /**
   * Milliseconds to wait for the answer to the handshake or to a ping, before the connection is abandoned (10,000).
   */
  timeout?: number | undefined;
}

export interface RequestOptions {
  /** Milliseconds to wait for the answer; without it, as long as the connection lasts. */
  timeout?: number | undefined;
  /** Gives the request up. */
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

/** A question and its answer: `(message: Rename) => Renamed`. Several are a union: `A | B`. */
export type Call = (message: any) => unknown;

/** The messages that may be asked. */
export type Question<Calls extends Call> = Parameters<Calls>[0] & object;

/** What the service answers to a message. */
export type Answer<Calls extends Call, Asked> = Calls extends (message: infer Each) => infer Reply
  ? Asked extends Each
    ? Reply
    : never
  : never;

/** The types of messages that `on` can be asked for. */
export type TypeOf<Message> = Message extends { type: infer Type extends string } ? Type : never;

/** A message whose tag may be left out, because `defaults` has it. */
export type Untagged<Message, Tag extends keyof Message> = Omit<Message, Tag> & Partial<Pick<Message, Tag>>;

/** A message of a channel: it has a sequence where the client resumes by `after`. */
export type Sequenced<Message> = Message & { sequence?: number | undefined };

/**
 * A WebSocket that reconnects.
 *
 * @typeParam Message What `onMessage` and `on` receive.
 * @typeParam Calls Which answer belongs to which message, for `request`.
 * @typeParam Outgoing What `send` takes.
 * @typeParam Streams Which answers belong to which message, for `stream`; as for `request` by default.
 */
export class ReconnectingWebSocket<
  Message = any,
  Calls extends Call = (message: any) => any,
  Outgoing = unknown,
  Streams extends Call = Calls,
> {
  /**
   * @param path Where to connect: a path or URL, relative to the page; http becomes ws, and https wss. Where there is no
   *   page, as in Node, a whole URL.
   */
  constructor(path: string | URL, options?: Options<Message>);

  get state(): State;

  /** The round-trip time of the last ping, in milliseconds. */
  get latency(): number | undefined;

  /** The sequence of the last message. Another page resumes there with `after`. */
  get sequence(): number | undefined;

  /** Connect; where it waits to reconnect, do so at once. Nothing happens while it is connected. */
  open(): this;

  /**
   * Call a function with each message of a type, before `onMessage`.
   *
   * @returns A function that ends it.
   */
  on<Type extends TypeOf<Message>>(type: Type, listener: (message: Extract<Message, { type: Type }>) => void): () => void;

  /**
   * Send a message as JSON.
   *
   * @returns "queued" until it is connected again; "refused", and dropped, if the queue is full or it is closed.
   */
  send(message: Outgoing): "sent" | "queued" | "refused";

  /** Send text as it is; otherwise like `send`. */
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
   * @throws As `request`; an error may come after some answers.
   */
  stream<Asked extends Question<Streams>>(
    message: Asked,
    options?: StreamOptions,
  ): AsyncGenerator<Answer<Streams, Asked>, void, undefined>;

  /**
   * Close, and do not reconnect.
   *
   * @param code 1000, or one of your own from 3000 to 4999.
   * @param reason At most 123 bytes.
   */
  close(code?: number, reason?: string): void;

  /** Treat the connection as lost, without waiting for the other side, and reconnect. */
  abandon(reason?: string): void;
}

/** The service answered a request or a stream with an error. The connection stays open. */
export class MessageRejected extends Error {
  constructor(code: string, detail?: string, extra?: unknown);
  /** What went wrong, for programs: `invalid_message`, or a code of your own. */
  code: string;
  /** What went wrong, for people. */
  detail: string;
  /** What the service added. */
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
 * The close codes (RFC 6455, 7.4): what each means, and whether the client reconnects. After a code that is not in the
 * map it stays closed: add the codes of your own service, as in `CLOSE_CODES.set(4001, { ... })`.
 *
 * After 1000 it reconnects, unless it closed itself or the reason is "done": some proxies close idle connections with
 * 1000.
 */
export const CLOSE_CODES: Map<number, { meaning: string; reconnect: boolean }>;
