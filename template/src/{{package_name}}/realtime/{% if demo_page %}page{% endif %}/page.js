// @ts-check
import { CLOSE_CODES, ReconnectingWebSocket } from "./client.js";
import { Lane, flow, hue, kept } from "./timeline.js";

/**
 * The messages that this page receives: those of `messages.py`, and those of the service itself.
 *
 * @typedef {{ type: "said", text: string, connection: string, count?: number }
 *   | { type: "joined" | "left", connection: string }
 *   | { type: "gap", missed: number | null }
 *   | { type: "error", code: string, detail: string }} Message
 *
 * A listener that streams: its path, its message without the text, and the field of the text.
 * @typedef {{ path: string, message: object, field: string }} Stream
 */

const LOG_LINES = 60;
const TOO_BIG = 70_000; // bytes; MAX_MESSAGE_SIZE is 65,536 by default
const FLOOD = 300; // messages; MESSAGE_BURST is 100 by default
const SAMPLES = 90; // seconds in the charts
const WORDS = ["hi", "still here", "what a day", "tea?", "yes", "never mind", "who is there?", "ha", "good point", "bye"];

let token = ""; // stored nowhere else
/** @type {Stream[]} */
let streams = [];

/** @param {string} id @returns {any} */
const $ = (id) => document.getElementById(id);

/** @param {string[]} words */
const pick = (words) => words[Math.floor(Math.random() * words.length)];

/** @param {string} id */
const short = (id) => (id.length > 8 ? id.slice(0, 6) : id);

/** What an item of a stream says: its first text. @param {Record<string, unknown>} item */
const textOf = ({ type, ...item }) => String(Object.values(item).find((value) => typeof value === "string") ?? type);

/** One client of this page, with its controls and the messages that it receives. */
class Card {
  /** @type {Set<Card>} */
  static all = new Set();
  static #made = 0;

  /** @type {string | undefined} */
  #id;
  /** @type {string | undefined} whose colour it has */
  #painted;
  #greeting = "";
  #count = 0;
  #connections = 0;
  /** @type {string | undefined} why it cannot connect, while the service answers */
  refusal;
  /** @type {import("./client.js").State["lastClose"]} */
  #lastClose;
  /** @type {{ element: HTMLElement, key: string, times: number } | undefined} */
  #lastLine;
  /** @type {AbortController | undefined} of the last stream */
  #running;

  /** @param {{ room?: string, stream?: Stream }} [kind] an echo if it is none of these */
  constructor({ room, stream } = {}) {
    this.room = room;
    this.stream = stream;
    this.number = ++Card.#made;
    const kind = room ? `Room ${room}` : stream ? `Stream ${stream.path}` : "Echo";
    this.name = `${kind} #${this.number}`;
    /** @type {HTMLElement} */
    this.root = $("card").content.firstElementChild.cloneNode(true);
    /** @type {Record<string, any>} */
    this.part = {};
    for (const element of this.root.querySelectorAll("[data-part]")) {
      this.part[element.getAttribute("data-part") ?? ""] = element;
    }
    const { name, part } = this;
    part.name.textContent = name;
    part.counter.textContent = room || stream ? "Received" : "Count";
    if (stream) part.say.textContent = part.text.placeholder = "Ask";
    part.remove.ariaLabel = `Remove ${name}`;
    part.log.ariaLabel = `Messages of ${name}`;
    part.text.ariaLabel = `Message to ${name}`;
    part.actions.ariaLabel = `Break ${name}`;
    this.root.ariaLabel = name;
    this.lane = new Lane($("lanes"), name);

    const path = stream?.path ?? (room === undefined ? "ws/echo" : `ws/rooms/${encodeURIComponent(room)}`);
    /** @type {ReconnectingWebSocket<Message>} */
    this.socket = new ReconnectingWebSocket(path, {
      onMessage: (message) => this.#receive(message),
      onState: (state) => this.#show(state),
      onRefused: ({ status, detail }) => (this.refusal = `${status} ${detail}`),
      token: () => token,
      after: room === undefined ? undefined : 0,
      maxQueue: 20,
      pingInterval: 5000,
    });

    part.form.onsubmit = (/** @type {Event} */ event) => {
      event.preventDefault();
      if (stream) this.#ask(part.text.value);
      else this.say(part.text.value);
      part.text.value = "";
    };
    part.toggle.onclick = () => (this.#connected ? this.socket.close() : this.socket.open());
    part.remove.onclick = () => this.#remove();
    this.#onClick("drop", () => this.socket.abandon());
    this.#onClick("invalid", () => this.#send("{invalid"));
    this.#onClick("big", () => this.#send(this.#message("x".repeat(TOO_BIG))));
    this.#onClick("flood", () => {
      for (let i = 0; i < FLOOD; i++) this.#send(this.#message("flood"));
    });
    // A screen reader reads out the messages of the card that is in use, and not those of all cards at once.
    this.root.addEventListener("focusin", () => (part.log.ariaLive = "polite"));
    this.root.addEventListener("focusout", () => (part.log.ariaLive = "off"));

    Card.all.add(this);
    $("cards").append(this.root);
    this.socket.open();
  }

  get isOpen() {
    return this.socket.state.status === "open";
  }

  get #isClosed() {
    return this.socket.state.status === "closed";
  }

  get #connected() {
    return ["open", "connecting"].includes(this.socket.state.status);
  }

  /**
   * Let a button act while the connection is open. It keeps the focus, as a disabled one would not.
   *
   * @param {string} name
   * @param {() => void} act
   */
  #onClick(name, act) {
    this.part[name].onclick = () => this.isOpen && act();
  }

  /** @param {string} text */
  #message(text) {
    return this.stream ? { ...this.stream.message, [this.stream.field]: text } : { type: "say", text };
  }

  /**
   * Ask for a stream, and show it as it comes, until it ends or is stopped.
   *
   * @param {string} text
   */
  async #ask(text) {
    const { stop, log, count } = this.part;
    this.#running?.abort();
    const running = (this.#running = new AbortController());
    stop.hidden = false;
    stop.onclick = () => running.abort();
    this.#log("event", text);
    const line = this.#log("said", "");
    this.lane.mark("outgoing");
    try {
      for await (const item of this.socket.stream(this.#message(text), { signal: running.signal })) {
        this.lane.mark("incoming");
        count.textContent = ++this.#count;
        line.append(textOf(item));
        log.scrollTop = log.scrollHeight;
      }
      this.#tell("event", "the stream has ended");
    } catch (error) {
      if (running.signal.aborted) this.#tell("event", "stopped");
      else this.#tell("error", String(error));
    }
    if (running === this.#running) stop.hidden = true;
  }

  /** @param {string} text */
  say(text) {
    const fate = this.#send(this.#message(text));
    if (fate === "queued") this.#log("event", `“${text}” waits for the connection`);
    else if (fate === "refused") {
      this.#log("error", `“${text}” was not sent: ${this.#isClosed ? "the connection is closed" : "the queue is full"}`);
    }
  }

  /** @param {object | string} message as text if it is not valid */
  #send(message) {
    const fate = this.socket.sendText(typeof message === "string" ? message : JSON.stringify(message));
    if (fate === "sent") this.lane.mark("outgoing");
    return fate;
  }

  /** @param {Message} message */
  #receive(message) {
    this.lane.mark(message.type === "error" ? "failed" : "incoming");
    if (message.type === "error") {
      this.#log("error", `${message.code}: ${message.detail}`);
      return;
    }
    if (message.type === "gap") {
      this.#log("error", `a gap: ${message.missed ?? "some"} messages are missing`);
      return;
    }
    if (this.stream) {
      this.#log("said", textOf(message));
      return;
    }
    if (message.type !== "said") {
      this.#log("event", `${short(message.connection)} ${message.type}`, message.connection);
      return;
    }
    if (message.text === this.#greeting) this.#identify(message.connection);
    this.#count = message.count ?? this.#count + 1;
    this.part.count.textContent = this.#count;
    this.#log("said", message.text, message.connection);
  }

  /** @param {import("./client.js").State} state */
  #show({ status, lastClose }) {
    this.root.dataset.status = status;
    this.part.toggle.textContent = this.#connected ? "Close" : "Connect";
    for (const name of ["drop", "invalid", "big", "flood"]) this.part[name].ariaDisabled = String(status !== "open");
    if (status === "open") {
      this.refusal = undefined;
      this.part.connections.textContent = ++this.#connections;
      this.lane.begin();
      this.#identify(undefined);
      this.#tell("event", this.#connections > 1 ? "reconnected: a new connection with a new state" : "connected");
      if (this.stream) this.#paint(`${this.name} ${this.#connections}`);
      else this.#greet();
    }
    if (lastClose && lastClose !== this.#lastClose) {
      this.#lastClose = lastClose;
      const { code, reason } = lastClose;
      if (!this.#connections) this.refusal ??= `${code} before the WebSocket was open`;
      const meaning = CLOSE_CODES.get(code)?.meaning ?? "defined by the service";
      const cause = `${code} ${meaning}${reason && ` (${reason})`}: ${this.#isClosed ? "stays closed" : "reconnects"}`;
      this.#tell(this.#isClosed && code !== 1000 ? "error" : "event", cause);
      this.part.close.textContent = `${code} ${meaning}`;
      this.lane.end(code, !this.#isClosed);
    } else if (status === "closed") {
      this.#tell("event", "stays closed");
      this.lane.end();
    }
    this.tick();
  }

  /** Learn the id of the connection from the answer to a message of its own. In a room, others send greetings too. */
  #greet() {
    this.#greeting = `hello from #${this.number} at ${new Date().toLocaleTimeString()}`;
    this.say(this.#greeting);
  }

  /** Show the status and the latency, and count down to the next attempt. */
  tick() {
    const { latency, state } = this.socket;
    const seconds = Math.max(0, (state.retryAt ?? 0) - Date.now()) / 1000;
    const { status } = state;
    this.part.status.textContent = status === "waiting" ? `reconnects in ${seconds.toFixed(1)} s` : status;
    this.part.status.dataset.status = status;
    this.part.latency.textContent = latency === undefined ? "–" : `${latency.toFixed(latency < 10 ? 1 : 0)} ms`;
  }

  /** @param {string | undefined} id */
  #identify(id) {
    if (id === this.#id) return;
    this.#id = id;
    this.part.id.textContent = id ?? "–";
    if (id !== undefined) this.#paint(id);
  }

  /** @param {string} id of the connection, or what stands for it */
  #paint(id) {
    kept.add(id);
    this.root.style.setProperty("--hue", hue(id));
    this.lane.color(hue(id));
    kept.delete(this.#painted);
    this.#painted = id;
  }

  /**
   * Log an event, and announce it to screen readers wherever their focus is.
   *
   * @param {"event" | "error"} kind
   * @param {string} text
   */
  #tell(kind, text) {
    this.#log(kind, text);
    $("news").textContent = `${this.name}: ${text}`;
  }

  /**
   * Add a line, and return it; the same one again is only counted.
   *
   * @param {"said" | "event" | "error"} kind
   * @param {string} text
   * @param {string} [connection] whom it is about
   */
  #log(kind, text, connection) {
    const { log } = this.part;
    const key = `${kind} ${connection} ${text}`;
    if (this.#lastLine?.key === key) {
      this.#lastLine.element.dataset.times = `×${++this.#lastLine.times}`;
      return this.#lastLine.element;
    }
    const element = document.createElement("p");
    element.className = kind;
    if (connection) element.style.setProperty("--hue", hue(connection));
    if (kind === "said" && this.room && connection) {
      const who = document.createElement("b");
      who.textContent = connection === this.#id ? "you" : short(connection);
      element.append(who, " ");
    }
    element.append(text.length > 300 ? `${text.slice(0, 300)}…` : text);
    this.#lastLine = { element, key, times: 1 };
    log.append(element);
    while (log.children.length > LOG_LINES) log.firstElementChild.remove();
    log.scrollTop = log.scrollHeight;
    return element;
  }

  #remove() {
    Card.all.delete(this);
    kept.delete(this.#painted);
    this.socket.close();
    this.root.remove();
    this.lane.remove();
    $("echo").focus();
  }
}

/** The charts: `/metrics`, read once a second. */
const chart = {
  /** @type {{ open: number, received: number, sent: number }[]} */
  samples: [],
  /** @type {{ time: number, received: number, sent: number } | undefined} */
  before: undefined,

  /** @param {string} text in the format of Prometheus */
  add(text) {
    /** @type {Record<string, number>} */
    const values = {};
    const causes = [];
    for (const [, name, label, value] of text.matchAll(/^(\w+)(?:\{\w+="(\w+)"\})? (\S+)$/gm)) {
      values[name] = (values[name] ?? 0) + Number(value);
      if (name === "websocket_ended_total" && Number(value)) causes.push(`${label.replaceAll("_", " ")} ${Number(value)}`);
    }
    const now = {
      time: performance.now(),
      received: values.websocket_messages_received_total,
      sent: values.websocket_messages_sent_total,
    };
    const before = this.before ?? now;
    const seconds = Math.max(1, (now.time - before.time) / 1000);
    const rate = (/** @type {"received" | "sent"} */ name) => Math.max(0, now[name] - before[name]) / seconds;
    const last = { open: values.websocket_open, received: rate("received"), sent: rate("sent") };
    this.samples = [...this.samples, last].slice(-SAMPLES);
    this.before = now;

    $("open").textContent = last.open;
    $("rate").textContent = Math.round(last.received + last.sent);
    $("received").textContent = now.received;
    $("sent").textContent = now.sent;
    $("bad").textContent = values.websocket_bad_messages_total;
    $("accepted").textContent = values.websocket_accepted_total;
    $("ended").textContent = values.websocket_ended_total ?? 0;
    $("causes").textContent = causes.length ? `: ${causes.join(", ")}` : "";
    this.draw("open", ["open"]);
    this.draw("sent", ["sent", "received"]);
    const refusal = [...Card.all].map((card) => card.refusal).find(Boolean);
    const status = values.websocket_draining ? "draining" : refusal ? "refuses" : "ready";
    showService(status, status === "refuses" ? `${refusal}. The log of the service names the cause and the fix.` : "");
  },

  /** @param {string} area @param {("open" | "received" | "sent")[]} names */
  draw(area, names) {
    const top = Math.max(4, ...this.samples.flatMap((sample) => names.map((name) => sample[name])));
    const left = SAMPLES - this.samples.length;
    for (const name of names) {
      const height = (/** @type {number} */ value) => (29 - (27 * value) / top).toFixed(2);
      const points = this.samples.map((sample, i) => `${left + i},${height(sample[name])}`).join(" ");
      $(`${name}-line`).setAttribute("points", points);
      if (name === area) $(`${name}-area`).setAttribute("points", `${left},30 ${points} ${SAMPLES - 1},30`);
    }
  },
};

const SERVICE = {
  ready: "Service ready",
  refuses: "Service answers, but refuses this page",
  draining: "Service draining",
  unavailable: "Service unavailable",
};

/** @param {keyof typeof SERVICE} status @param {string} [refusal] why, and where to look */
function showService(status, refusal = "") {
  $("service").dataset.status = status;
  for (const [id, text] of [["service", SERVICE[status]], ["refusal", refusal]]) {
    if ($(id).textContent !== text) $(id).textContent = text; // a screen reader would read it again
  }
}

async function poll() {
  if (!document.hidden) {
    try {
      const answer = await fetch("metrics", { signal: AbortSignal.timeout(3000) });
      if (!answer.ok) throw new Error(answer.statusText);
      chart.add(await answer.text());
    } catch {
      showService("unavailable");
      $("open").textContent = $("rate").textContent = "–";
    }
  }
  setTimeout(poll, 1000);
}

/** Open the first connections. A service with authentication asks for a token first. */
async function begin() {
  streams = await (await fetch("page/streams")).json();
  for (const stream of streams) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = `Open ${stream.path}`;
    button.onclick = () => new Card({ stream });
    $("echo").after(button);
  }
  if (!tokenForm) openFirst();
}

function openFirst() {
  const room = new URLSearchParams(location.hash.slice(1)).get("room");
  if (room) {
    $("room").value = room;
    $("room").oninput();
    new Card({ room });
  } else {
    new Card();
    new Card();
    new Card({ room: "lobby" });
    for (const stream of streams) new Card({ stream });
  }
}

function showCodes() {
  for (const [code, { meaning, reconnect }] of CLOSE_CODES) {
    const row = $("codes").insertRow();
    for (const text of [code, meaning, reconnect ? "reconnects" : "stays closed"]) {
      row.insertCell().textContent = text;
    }
  }
}

const tokenForm = $("token-form");
if (tokenForm) {
  tokenForm.onsubmit = (/** @type {Event} */ event) => {
    event.preventDefault();
    token = $("token").value;
    if (Card.all.size) Card.all.forEach((card) => card.socket.open());
    else openFirst();
  };
}
$("echo").onclick = () => new Card();
$("join").onsubmit = (/** @type {Event} */ event) => {
  event.preventDefault();
  new Card({ room: $("room").value });
};
$("room").oninput = () => ($("window").hash = String(new URLSearchParams({ room: $("room").value })));

$("talk").onclick = () => ($("talk").ariaPressed = String($("talk").ariaPressed !== "true"));

setInterval(() => Card.all.forEach((card) => card.tick()), 100);
setInterval(() => flow($("lanes")), matchMedia("(prefers-reduced-motion: reduce)").matches ? 1000 : 50);
setInterval(() => Card.all.forEach((card) => card.lane.prune()), 10_000);
setInterval(() => {
  if ($("talk").ariaPressed !== "true") return;
  for (const card of Card.all) if (card.isOpen && !card.stream && Math.random() < 0.3) card.say(pick(WORDS));
}, 500);
showCodes();
begin().catch(openFirst);
poll();
