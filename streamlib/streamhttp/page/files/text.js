// Text, numbers and times as a person reads them, and plots of them. Whatever comes from a server becomes text nodes.

// hidden are the characters that cannot be seen or change how others are shown: controls, those of bidirectional text,
// spaces of no width, line ends that are none of a font's, tags, and halves of characters.
const hidden = new RegExp("[\\u0000-\\u001f\\u007f-\\u009f\\u00ad\\u034f\\u061c\\u115f\\u1160\\u17b4\\u17b5" +
  "\\u180b-\\u180f\\u200b\\u200e\\u200f\\u2028-\\u202e\\u2060-\\u206f\\u3164\\ufeff\\uffa0\\ufff0-\\ufffb" +
  "\\u{e0000}-\\u{e0fff}\\ud800-\\udfff]", "gu");

const escaped = (c) => {
  const n = c.codePointAt(0);
  return n > 0xffff ? `\\u{${n.toString(16)}}` : `\\u${n.toString(16).padStart(4, "0")}`;
};

// plain returns text with escapes for what cannot be seen.
export const plain = (text) => text.replace(hidden, escaped);

// seen returns nodes for text, in which such escapes look different from the same letters.
export function seen(text) {
  const nodes = [];
  let at = 0;
  for (const found of text.matchAll(hidden)) {
    if (found.index > at) nodes.push(text.slice(at, found.index));
    nodes.push(h("span", { class: "escape" }, escaped(found[0])));
    at = found.index + found[0].length;
  }
  if (at < text.length || nodes.length === 0) nodes.push(text.slice(at));
  return nodes;
}

// h makes an element. Functions are listeners, and children that are strings are text.
export function h(tag, attributes, ...children) {
  return dress(document.createElement(tag), attributes, children);
}

// s is h for SVG.
export function s(tag, attributes, ...children) {
  return dress(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function dress(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== undefined && value !== null && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.flat());
  return element;
}

// say sets an element's text, unless it has it: a live region speaks of each change.
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const whole = new Intl.NumberFormat("en-US");

export const number = (n) => whole.format(n);

export const counted = (n, one, many = one + "s") => `${number(n)} ${n === 1 ? one : many}`;

export function size(bytes) {
  let unit = 0;
  const units = ["B", "kB", "MB", "GB", "TB"];
  while (bytes >= 1000 && unit < units.length - 1) {
    bytes /= 1000;
    unit++;
  }
  return `${bytes >= 100 || unit === 0 ? Math.round(bytes) : bytes.toFixed(1)} ${units[unit]}`;
}

export const rate = (n) => (n === 0 ? "" : n < 10 ? n.toFixed(1) : number(Math.round(n))) + (n === 0 ? "" : "/s");

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit",
  fractionalSecondDigits: 3 });
const day = new Intl.DateTimeFormat("en-GB", { day: "2-digit", month: "short", year: "numeric" });

// time is the local time of day, with the day where that is another one than today.
export function time(date) {
  const today = new Date().toDateString() === date.toDateString();
  return today ? clock.format(date) : `${day.format(date)} ${clock.format(date)}`;
}

// moment is time without parts of a second.
export const moment = (date) => time(date).replace(/\.\d+$/, "");

export function ago(date) {
  const seconds = Math.max(0, (Date.now() - date) / 1000);
  if (seconds < 2) return "now";
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  if (seconds < 86400 * 365) return `${Math.floor(seconds / 86400)} d ago`;
  return `${Math.floor(seconds / (86400 * 365))} y ago`;
}

// A Rate counts what came in each of the last 60 seconds.
export class Rate {
  counts = new Float64Array(60);
  at = Math.floor(Date.now() / 1000);

  // turn drops what is too old.
  turn() {
    const now = Math.floor(Date.now() / 1000);
    const steps = now - this.at;
    if (steps === 0) return;
    if (steps < 0 || steps >= 60) this.counts.fill(0);
    else {
      this.counts.copyWithin(0, steps);
      this.counts.fill(0, 60 - steps);
    }
    this.at = now;
  }

  add(n) {
    this.turn();
    this.counts[59] += n;
  }

  // recent is how many came a second in the last ten.
  recent() {
    this.turn();
    let sum = 0;
    for (let i = 49; i < 60; i++) sum += this.counts[i];
    return sum / 10;
  }

  still() {
    this.turn();
    return this.counts.every((n) => n === 0);
  }
}

// line draws counts as the path of a small plot, of the box 100 by 24.
export function line(path, counts, closed) {
  const most = Math.max(1, ...counts);
  const step = 100 / (counts.length - 1);
  let d = "";
  counts.forEach((n, i) => {
    d += `${i === 0 ? "M" : "L"}${(i * step).toFixed(2)} ${(23 - 21 * (n / most)).toFixed(2)}`;
  });
  path.setAttribute("d", closed ? `${d}L100 24L0 24Z` : d);
}

// bars draws counts as bars of the box 0 0 N 40, and what is none as a dot of the ground line.
export function bars(plot, counts) {
  const most = Math.max(1, ...counts);
  plot.setAttribute("viewBox", `0 0 ${counts.length || 1} 40`);
  plot.replaceChildren(...Array.from(counts, (n, i) => {
    const height = n === 0 ? 0.6 : 2 + 38 * (n / most);
    return s("rect", { x: i + 0.1, width: 0.8, y: (40 - height).toFixed(2), height: height.toFixed(2),
      class: n === 0 ? "none" : "some" });
  }));
}
