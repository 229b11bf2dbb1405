// An event as it is shown: a line, and its data below when a person wants to see it.

import { h, seen, time } from "./text.js";
import { path, segment, token } from "./server.js";
import { pretty, tree } from "./json.js";

const digits = 16;
const offsetAt = '{"offset":"'.length;

export const padded = (offset) => String(offset).padStart(digits, "0");

// What an event's line has. Its members are in this order, and the name has no quote that is not escaped.
export const offsetOf = (text) => Number(text.slice(offsetAt, offsetAt + digits));
export const dataOf = (text) => text.slice(text.indexOf('"data":') + 7, text.lastIndexOf(',"createdAt":"'));
const createdOf = (text) => new Date(text.substr(text.lastIndexOf(',"createdAt":"') + 14, 24));

function typeOf(data) {
  if (!data.startsWith("{")) return "";
  try {
    const { type, _type } = JSON.parse(data);
    return typeof type === "string" ? type : typeof _type === "string" ? _type : "";
  } catch {
    return "";
  }
}

// hue is a type's colour, which is beside its name and never instead of it.
function hue(type) {
  let sum = 0;
  for (const c of type) sum = (sum * 31 + c.codePointAt(0)) % 3600;
  return sum / 10;
}

// rowOf makes the line of an event; open is called where it is to be opened or closed.
export function rowOf(text, open) {
  const offset = offsetOf(text), data = dataOf(text), created = createdOf(text), type = typeOf(data);
  const label = h("span", { class: "type" }, seen(type.length > 60 ? `${type.slice(0, 60)}…` : type));
  label.style.setProperty("--hue", hue(type));
  const button = h("button", { type: "button", class: "line", "aria-expanded": "false", tabindex: "-1", click: open },
    h("span", { class: "offset" }, String(offset)), " ",
    h("time", { datetime: created.toISOString(), title: created.toISOString() }, time(created)), " ", label, " ",
    h("span", { class: "data" }, seen(data.slice(0, 400)), data.length > 400 ? "…" : ""));
  return { offset, data, text, type, element: h("li", { class: type ? "event" : "event untyped" }, button) };
}

// fold opens or closes the row of an event, and tells whether it is open.
export function fold(row, name, copy) {
  const button = row.element.firstChild;
  const open = row.element.childElementCount === 1;
  button.setAttribute("aria-expanded", open);
  if (!open) {
    row.element.lastChild.remove();
    return false;
  }
  const way = (label, what) => h("button", { type: "button", class: "small", click: () => copy(what()) }, label);
  row.element.append(h("div", { class: "detail" }, tree(row.data), h("p", { class: "do" },
    way("Copy data", () => pretty(row.data)),
    way("Copy event", () => row.text),
    way("Copy as curl", () => curl(name, row.offset)),
    way("Copy link", () => `${here()}#/stream/${segment(name)}/${row.offset}`))));
  return true;
}

const here = () => location.href.replace(/[#?].*/, "");

// curl is a command that reads the event. A token is not in it, but where that is to be.
export function curl(name, offset) {
  const authorization = token.get() ? ' -H "Authorization: Bearer $DURABLE_STREAMS_TOKEN"' : "";
  return `curl -s${authorization} '${here()}${path(name, `/events?offset=${offset}&limit=1`)}'`;
}
