// @ts-check
/** The timeline of the connections: one lane for each card. Now is at the right edge, and time flows to the left. */

const SPEED = 30; // pixels a second; the lines in style.css are five seconds apart
const MAX_SECONDS = 100; // on the widest screens
const HUES = [80, 110, 205, 235, 265, 300, 335]; // degrees; neither the red of errors nor the green of "open"
const CODE_WIDTH = 42; // pixels

/** Where each mark is in a lane, in pixels from its middle. */
const CODES = [-6, 17]; // where the close codes are
const MARKS = { outgoing: [-5, -14], incoming: [5, 14], failed: [5, 14] };

/** @type {Map<string, number>} the step around the colour circle of each id, the ids that were used last at the end */
const hues = new Map();

/** @type {Set<string | undefined>} the ids that keep their colours, however many others there are */
export const kept = new Set();

/**
 * Return the hue of a connection, in degrees. It depends on the id, so that windows mostly show the same, and it differs
 * from the hues of the others that were used last.
 *
 * @param {string} id
 */
export function hue(id) {
  let step = hues.get(id);
  if (step === undefined) {
    const ids = [...hues.keys()];
    if (ids.length === HUES.length) hues.delete(ids.find((each) => !kept.has(each)) ?? ids[0]);
    const taken = new Set(hues.values());
    step = [...id].reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) % 10_007, 7) % HUES.length;
    while (taken.has(step)) step = (step + 2) % HUES.length;
  }
  hues.delete(id); // to the end, where the latest are
  hues.set(id, step);
  return String(HUES[step]);
}

/** Move time on in all lanes. @param {HTMLElement} lanes */
export function flow(lanes) {
  lanes.style.setProperty("--flown", `${-now()}px`);
}

export class Lane {
  #track = draw("g", { class: "track" });
  /** @type {{ element: Element, x: number }[]} the elements, the oldest first */
  #drawn = [];
  /** @type {SVGElement | undefined} the connection that is open */
  #connection;
  /** @type {Element | undefined} the line that still grows: of a connection, or of the wait for the next one */
  #line;
  /** @type {Record<string, number>} where the last mark of each kind is */
  #last = {};
  /** @type {Record<number, number>} where the last close code of each height is */
  #codes = {};

  /** @param {HTMLElement} lanes @param {string} name */
  constructor(lanes, name) {
    this.root = document.createElement("div");
    this.root.className = "lane";
    this.root.dataset.name = name;
    const svg = draw("svg", {});
    const fromTheRight = draw("svg", { x: "100%", y: "50%", overflow: "visible" });
    fromTheRight.append(this.#track);
    svg.append(fromTheRight);
    this.root.append(svg);
    lanes.append(this.root);
  }

  begin() {
    this.#stop();
    this.#connection = draw("g", { class: "connection" });
    this.#track.append(this.#connection);
    this.#go(this.#connection, "line");
    this.#add(this.#connection, "circle", { class: "opened", cx: now(), r: 4.5 });
  }

  /** @param {string} hue of the connection that is open */
  color(hue) {
    this.#connection?.style.setProperty("--hue", hue);
  }

  /** @param {"outgoing" | "incoming" | "failed"} kind */
  mark(kind) {
    const x = Math.round(now());
    if (!this.#connection || this.#last[kind] === x) return;
    this.#last[kind] = x;
    const [y1, y2] = MARKS[kind];
    this.#add(this.#connection, "line", { class: kind, x1: x, x2: x, y1, y2 });
  }

  /**
   * End the connection that is open, or the wait for the next one.
   *
   * @param {number} [code]
   * @param {boolean} [reconnects]
   */
  end(code, reconnects) {
    this.#stop();
    if (this.#connection) {
      const x = now();
      this.#add(this.#connection, "path", { class: "closed", d: `M${x - 4},-4l8,8m0,-8l-8,8` });
      const y = CODES.find((y) => !(x - this.#codes[y] < CODE_WIDTH)); // none if it would cover both before it
      if (y !== undefined) {
        this.#codes[y] = x;
        this.#add(this.#connection, "text", { x: x - 9, y }).textContent = String(code);
      }
    }
    this.#connection = undefined;
    if (reconnects) this.#go(this.#track, "wait");
  }

  /** Remove what is beyond the left edge. */
  prune() {
    const gone = now() - MAX_SECONDS * SPEED;
    while (this.#drawn.length && this.#drawn[0].x < gone) this.#drawn.shift()?.element.remove();
    for (const group of this.#track.children) if (!group.children.length && group.localName === "g") group.remove();
  }

  remove() {
    this.root.remove();
  }

  /** @param {Element} parent @param {string} kind */
  #go(parent, kind) {
    this.#line = draw("line", { class: kind, x1: now(), x2: 1e9 });
    parent.append(this.#line);
  }

  #stop() {
    if (!this.#line) return;
    this.#line.setAttribute("x2", String(now()));
    this.#drawn.push({ element: this.#line, x: now() });
    this.#line = undefined;
  }

  /** @param {Element} parent @param {string} name @param {Record<string, string | number>} attributes */
  #add(parent, name, attributes) {
    const element = draw(name, attributes);
    this.#drawn.push({ element, x: now() });
    parent.append(element);
    return element;
  }
}

function now() {
  return (performance.now() / 1000) * SPEED;
}

/** @param {string} name @param {Record<string, string | number>} attributes */
function draw(name, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  return element;
}
