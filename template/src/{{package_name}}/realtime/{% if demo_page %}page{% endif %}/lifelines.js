// @ts-check
/** The picture of the lives: one lane for each card, on which time flows from the right, which is now, to the left. */

const SPEED = 20; // pixels a second; the lines in style.css are five seconds apart
const LONGEST = 150; // seconds that fit on the widest of screens
const HUES = 12;

/** Where each mark is in a lane, in pixels from its middle. */
const MARKS = { says: [-5, -14], hears: [5, 14], errs: [5, 14] };

/** @type {Map<string, number>} the ids that were used last, and which step around the circle each has */
const hues = new Map();

/**
 * Return the hue of a connection, in degrees: told by its id, so that windows mostly show the same, and apart from those
 * of the others that were used last.
 *
 * @param {string} id
 */
export function hue(id) {
  let step = hues.get(id);
  if (step === undefined) {
    if (hues.size === HUES) hues.delete([...hues.keys()][0]);
    const taken = new Set(hues.values());
    step = [...id].reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) % 10_007, 7) % HUES;
    while (taken.has(step)) step = (step + 5) % HUES;
  }
  hues.delete(id); // to the end, where the latest are
  hues.set(id, step);
  return String((step * 360) / HUES + 20);
}

/** Move time on in all lanes. @param {HTMLElement} lanes */
export function flow(lanes) {
  lanes.style.setProperty("--flown", `${-now()}px`);
}

export class Lane {
  #track = draw("g", { class: "track" });
  /** @type {{ element: Element, x: number }[]} what flows away, the oldest first */
  #drawn = [];
  /** @type {SVGElement | undefined} the life that goes on */
  #life;
  /** @type {Element | undefined} the line that goes on, of a life or of the wait for the next one */
  #line;
  /** @type {Record<string, number>} where the last mark of each kind is */
  #last = {};

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
    this.#life = draw("g", { class: "life" });
    this.#track.append(this.#life);
    this.#go(this.#life, "line");
    this.#add(this.#life, "circle", { class: "begins", cx: now(), r: 4.5 });
  }

  /** @param {string} hue of the life that goes on */
  color(hue) {
    this.#life?.style.setProperty("--hue", hue);
  }

  /** @param {"says" | "hears" | "errs"} kind */
  mark(kind) {
    const x = Math.round(now());
    if (!this.#life || this.#last[kind] === x) return;
    this.#last[kind] = x;
    const [y1, y2] = MARKS[kind];
    this.#add(this.#life, "line", { class: kind, x1: x, x2: x, y1, y2 });
  }

  /**
   * End the life that goes on, or the wait for the next one.
   *
   * @param {number} [code]
   * @param {boolean} [comesBack]
   */
  end(code, comesBack) {
    this.#stop();
    if (this.#life) {
      const x = now();
      this.#add(this.#life, "path", { class: "ends", d: `M${x - 4},-4l8,8m0,-8l-8,8` });
      this.#add(this.#life, "text", { x: x - 9, y: -6 }).textContent = String(code);
    }
    this.#life = undefined;
    if (comesBack) this.#go(this.#track, "wait");
  }

  /** Forget what has flown away. */
  prune() {
    const gone = now() - LONGEST * SPEED;
    while (this.#drawn.length && this.#drawn[0].x < gone) this.#drawn.shift()?.element.remove();
    for (const life of this.#track.children) if (!life.children.length && life.localName === "g") life.remove();
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
