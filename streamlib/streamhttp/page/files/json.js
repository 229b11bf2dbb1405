// Values as they were sent: numbers and the order of members are the sender's, which JSON.parse would change.

import { h, seen, counted } from "./text.js";

// parse returns the tree of a valid JSON text. A node is {kind, from, to}, its place in the text, and of an object or
// an array its children, of which those of an object have a key, a place too.
export function parse(text) {
  let at = 0;
  const space = () => { while (text.charCodeAt(at) <= 32) at++; };
  const string = () => {
    const from = at++;
    for (; text[at] !== '"'; at++) {
      if (text[at] === "\\") at++;
      if (at >= text.length) throw new SyntaxError("the text ends in a string");
    }
    return { kind: "string", from, to: ++at };
  };
  const value = () => {
    space();
    const from = at;
    const open = text[at];
    if (open === '"') return string();
    if (open !== "{" && open !== "[") {
      while (at < text.length && !/[\s,\]}]/.test(text[at])) at++;
      const kind = /[tfn]/.test(open) ? "word" : "number";
      return { kind, from, to: at };
    }
    const children = [];
    const close = open === "{" ? "}" : "]";
    for (at++, space(); text[at] !== close; space()) {
      if (at >= text.length) throw new SyntaxError("the text ends too early");
      if (text[at] === ",") { at++; space(); }
      let key;
      if (open === "{") {
        key = string();
        space();
        at++; // the colon
      }
      const child = value();
      child.key = key;
      children.push(child);
    }
    return { kind: open === "{" ? "object" : "array", from, to: ++at, children };
  };
  return value();
}

const atOnce = 100; // children, and then by asking
const longest = 4000; // characters of a string, and then by asking

// tree shows a JSON text, with parts that fold.
export function tree(text) {
  return h("div", { class: "json" }, part(text, parse(text), 0, ""));
}

// pretty is a JSON text with white space.
export function pretty(text, node = parse(text), indent = "") {
  if (!node.children?.length) return text.slice(node.from, node.to).replace(/^([{[])\s+([}\]])$/, "$1$2");
  const [open, close] = node.kind === "object" ? "{}" : "[]";
  const inner = `${indent}  `;
  const members = node.children.map((child) =>
    `${inner}${child.key ? `${text.slice(child.key.from, child.key.to)}: ` : ""}${pretty(text, child, inner)}`);
  return `${open}\n${members.join(",\n")}\n${indent}${close}`;
}

function part(text, node, depth, comma) {
  const key = node.key ? [h("span", { class: "key" }, seen(text.slice(node.key.from, node.key.to))), ": "] : [];
  if (!node.children?.length) return h("div", { class: "leaf" }, key, leaf(text, node), comma);
  const [open, close] = node.kind === "object" ? "{}" : "[]";
  const what = counted(node.children.length, node.kind === "object" ? "member" : "value");
  const children = h("div", { class: "children" });
  const fold = h("details", { open: depth < 2 && node.children.length <= atOnce },
    h("summary", null, key, open, h("span", { class: "folded" }, ` ${what} ${close}${comma}`)),
    children, h("div", { class: "close" }, close + comma));
  const fill = () => { if (fold.open && !children.firstChild) more(text, node, children, depth, 0); };
  fold.addEventListener("toggle", fill);
  fill();
  return fold;
}

function more(text, node, children, depth, from) {
  const to = Math.min(node.children.length, from + atOnce);
  for (let i = from; i < to; i++) {
    children.append(part(text, node.children[i], depth + 1, i < node.children.length - 1 ? "," : ""));
  }
  if (to < node.children.length) {
    children.append(h("button", { type: "button", class: "quiet", click(event) {
      event.target.remove();
      more(text, node, children, depth, to);
    } }, `${counted(node.children.length - to, "more", "more")}`));
  }
}

function leaf(text, node) {
  const raw = text.slice(node.from, node.to);
  if (raw.length <= longest) return h("span", { class: node.kind }, seen(raw));
  const shown = h("span", { class: node.kind }, seen(raw.slice(0, longest)), "… ",
    h("button", { type: "button", class: "quiet", click() { shown.replaceChildren(...seen(raw)); } },
      `${counted(raw.length - longest, "character")} more`));
  return shown;
}
