// The streams of the server: as many as a person looks at are asked for, and those in view are shown.

import { h, s, seen, plain, say, number, counted, size, rate, ago, line, Rate } from "./text.js";
import { ask, json, segment, Subscription } from "./server.js";

const firstPage = 200;
const nextPage = 2000;
const mostHeight = 15_000_000; // pixels, which all browsers can scroll through

const columns = [
  { id: "name", label: "Stream" },
  { id: "events", label: "Events", of: (e) => e.tail - e.first },
  { id: "size", label: "Size", of: (e) => e.size },
  { id: "updated", label: "Last activity", of: (e) => e.updated },
  { id: "rate", label: "Rate", of: (e) => e.rate?.recent() ?? 0 },
];

// compare orders names as the server does, by code points.
function compare(a, b) {
  for (let i = 0; ; i++) {
    const x = a.codePointAt(i), y = b.codePointAt(i);
    if (x !== y || x === undefined) return (x ?? -1) - (y ?? -1);
  }
}

export class ListView {
  title = "Streams";
  #entries = new Map();
  #order = []; // of entries
  #sort = { by: "name", down: false };
  #prefix = "";
  #after = ""; // the name that the next page begins behind
  #complete = false;
  #loading = null;
  #again = false; // all is to be asked for again
  #dirty = false; // the order may be wrong
  #total = new Rate();
  #rows = new Map(); // elements by name
  #slow = 0; // ms that ordering takes
  #connected = false;

  constructor(app) {
    this.app = app;
    this.element = this.#frame();
  }

  open() {
    this.#begin();
    this.timer = setInterval(() => this.#tick(), 1000);
    this.resized = new ResizeObserver(() => this.#draw());
    this.resized.observe(this.box);
  }

  close() {
    this.subscription?.stop();
    this.#loading?.abort();
    clearInterval(this.timer);
    this.resized.disconnect();
    cancelAnimationFrame(this.frame);
  }

  // begin shows the streams with the prefix.
  #begin() {
    this.#entries.clear();
    this.#order = [];
    this.#connected = false;
    this.#reset();
    this.box.scrollTop = 0;
    this.subscription?.stop();
    const prefix = this.#prefix ? `&prefix=${encodeURIComponent(this.#prefix)}` : "";
    const state = (name, text, why) => {
      this.app.status(name, text, why);
      say(this.why, why ?? "");
      this.why.hidden = !why;
    };
    state("connecting", "Connecting");
    this.subscription = new Subscription(`streams?details=true${prefix}`, {
      opened: () => {
        state("caughtup", "Live");
        if (this.#connected) this.#again = true; // what changed meanwhile was not told
        this.#connected = true;
        this.#need();
      },
      event: (id, type, data) => this.#changes(JSON.parse(data).streams),
      ready: () => this.#soon(),
      lost: (error, wait) => state("lost", "Broken off", `${error.message}; trying again in ${Math.ceil(wait)} s`),
      ended: () => state("lost", "Broken off"),
      refused: (refusal) => {
        const passing = refusal.status >= 500 || refusal.status === 429;
        state(passing ? "lost" : "refused", passing ? "Broken off" : "Not followed", refusal.message);
        return passing;
      },
    }).start();
  }

  #reset() {
    this.#loading?.abort();
    this.#loading = null;
    this.#after = "";
    this.#complete = false;
    this.#again = false;
  }

  // need asks for the next page where it is needed: to fill what is in view, or for an order that needs all.
  async #need() {
    if (!this.#connected || this.#loading) return;
    if (this.#again) {
      this.#reset();
      this.stale = new Set(this.#entries.keys());
    }
    const inOrder = this.#sort.by === "name" && !this.#sort.down;
    const shown = this.box.scrollTop + 2 * this.box.clientHeight;
    if (this.#complete || inOrder && !this.stale && this.#order.length * this.#height() > shown) {
      this.#tellCount();
      return;
    }
    const control = this.#loading = new AbortController();
    try {
      const prefix = this.#prefix ? `&prefix=${encodeURIComponent(this.#prefix)}` : "";
      const from = `limit=${this.#after ? nextPage : firstPage}&after=${encodeURIComponent(this.#after)}`;
      const page = await ask(`streams?details=true&${from}${prefix}`, json, { signal: control.signal });
      if (this.#loading !== control) return;
      this.#loading = null;
      this.#complete = !page.next;
      this.#after = page.next ?? "";
      for (const stream of page.streams) {
        this.stale?.delete(stream.name);
        this.#note(stream, true);
      }
      if (this.#complete && this.stale) {
        for (const name of this.stale) this.#entries.delete(name);
        this.stale = null;
        this.#dirty = true;
      }
      this.#arrange();
      this.#draw();
      this.#need();
    } catch (error) {
      if (this.#loading !== control) return;
      this.#loading = null;
      if (!control.signal.aborted) this.app.tell(error.message, "bad");
    }
  }

  // note takes what the server tells of a stream.
  #note(stream, listed) {
    let entry = this.#entries.get(stream.name);
    if (stream.deleted && !stream.nextOffset) {
      if (entry) this.#dirty = this.#entries.delete(stream.name);
      return;
    }
    if (!entry) {
      // Of those that the pages that are to come will have, this is the wrong place.
      if (!listed && !this.#complete && compare(stream.name, this.#after) > 0) return;
      entry = { name: stream.name, tail: 0, life: stream.life ?? 0, known: false };
      this.#entries.set(stream.name, entry);
      this.#dirty = true;
    }
    const tail = Number(stream.nextOffset ?? 0);
    if (!listed) {
      const came = tail - ((stream.life ?? 0) === entry.life ? entry.tail : 0);
      if (came > 0) {
        (entry.rate ??= new Rate()).add(came);
        this.#total.add(came);
      }
      if (this.#sort.by !== "name") this.#dirty = true;
    }
    Object.assign(entry, { tail, life: stream.life ?? 0, first: Number(stream.first ?? 0), size: stream.size ?? 0,
      updated: stream.updatedAt ? Date.parse(stream.updatedAt) : 0, closed: stream.closed === true,
      error: stream.error ?? "" });
  }

  #changes(streams) {
    const had = this.#entries.size;
    for (const stream of streams) this.#note(stream, false);
    const made = this.#entries.size - had;
    if (made > 0) this.app.hear(counted(made, "new stream"));
  }

  // arrange puts the streams in order.
  #arrange() {
    if (!this.#dirty) return;
    this.#dirty = false;
    const began = performance.now();
    const { by, down } = this.#sort;
    const sign = down ? -1 : 1;
    const entries = [...this.#entries.values()];
    const column = columns.find(({ id }) => id === by);
    if (column.of) for (const entry of entries) entry.key = column.of(entry);
    entries.sort(column.of ? (a, b) => sign * (a.key - b.key) || compare(a.name, b.name)
      : (a, b) => sign * compare(a.name, b.name));
    this.#order = entries;
    this.#slow = performance.now() - began;
  }

  #tick() {
    this.ticks = (this.ticks ?? 0) + 1;
    if (this.#sort.by === "rate") this.#dirty = true;
    if (this.ticks % Math.max(1, Math.ceil(this.#slow / 50)) === 0) this.#arrange();
    line(this.totalLine, this.#total.counts, true);
    say(this.totalText, `${rate(this.#total.recent()) || "0/s"}`);
    this.#draw();
  }

  #soon() {
    if (!this.frame) this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      if (this.#slow < 20) this.#arrange();
      this.#draw();
    });
  }

  #height() {
    return Number.parseFloat(getComputedStyle(this.box).getPropertyValue("--row")) || 44;
  }

  // draw shows the rows that are in view.
  #draw() {
    const height = this.#height();
    const most = Math.floor(mostHeight / height);
    const count = Math.min(this.#order.length, most);
    this.body.style.height = `${count * height}px`;
    const from = Math.max(0, Math.floor(this.box.scrollTop / height) - 4);
    const to = Math.min(count, Math.ceil((this.box.scrollTop + this.box.clientHeight) / height) + 4);
    const rows = new Map();
    for (let i = from; i < to; i++) {
      const entry = this.#order[i];
      const row = this.#rows.get(entry.name) ?? this.#row(entry.name);
      this.#fill(row, entry);
      row.element.style.transform = `translateY(${i * height}px)`;
      row.element.setAttribute("aria-rowindex", i + 2);
      rows.set(entry.name, row);
    }
    for (const [name, row] of this.#rows) if (!rows.has(name)) row.element.remove();
    let at = this.body.firstChild; // in the order in which they are read
    for (const { element } of rows.values()) {
      if (element === at) at = at.nextSibling;
      else if (!element.contains(document.activeElement) || !element.isConnected) this.body.insertBefore(element, at);
    }
    this.#rows = rows;
    this.table.setAttribute("aria-rowcount", this.#complete ? count + 1 : -1);
    this.#tellCount();
  }

  #tellCount() {
    const n = this.#order.length;
    say(this.count, this.#complete ? counted(n, "stream") : n === 0 ? "…" : this.#loading && this.#sort.by !== "name"
      ? `${number(n)} streams so far` : `${number(n)} streams and more`);
    this.none.hidden = n > 0 || !this.#complete;
    this.welcome.hidden = this.#prefix !== "";
    this.fresh.hidden = this.#prefix === "" || this.#entries.has(this.#prefix) || !this.#connected;
    if (!this.fresh.hidden && this.freshFor !== this.#prefix) {
      this.freshFor = this.#prefix;
      this.fresh.replaceChildren("There is no stream ", h("bdi", null, seen(this.#prefix)), ". ",
        h("a", { href: `#/stream/${segment(this.#prefix)}` }, "Append its first event"));
    }
  }

  #row(name) {
    const cell = (kind, ...children) => h("div", { role: "cell", class: kind }, ...children);
    const row = { events: cell("events number"), size: cell("size number"), updated: cell("updated"),
      badge: h("span", { class: "badges" }), rateText: h("span", { class: "number" }), path: s("path") };
    row.element = h("div", { role: "row", class: "row" },
      cell("name", h("a", { href: `#/stream/${segment(name)}` }, h("bdi", null, seen(name))), " ", row.badge),
      row.events, row.size, row.updated,
      cell("rate", row.rateText, s("svg", { viewBox: "0 0 100 24", preserveAspectRatio: "none", "aria-hidden": "true" },
        row.path)));
    return row;
  }

  #fill(row, entry) {
    say(row.events, entry.error ? "" : number(entry.tail - entry.first));
    say(row.size, entry.error ? "" : size(entry.size));
    say(row.updated, entry.updated ? ago(entry.updated) : "");
    row.updated.title = entry.updated ? new Date(entry.updated).toISOString() : "";
    const badge = entry.error ? "damaged" : entry.closed ? "closed" : "";
    if (row.shown !== badge) {
      row.shown = badge;
      row.badge.replaceChildren(...(badge ? [h("span", { class: `badge ${badge === "closed" ? "closed" : "bad"}`,
        title: plain(entry.error) }, badge)] : []));
    }
    const still = !entry.rate || entry.rate.still();
    say(row.rateText, still ? "" : rate(entry.rate.recent()));
    if (still && !row.drawn) return;
    row.drawn = !still;
    if (still) row.path.removeAttribute("d");
    else line(row.path, entry.rate.counts);
  }

  #sortBy(id) {
    const same = this.#sort.by === id;
    this.#sort = { by: id, down: same ? !this.#sort.down : id !== "name" };
    for (const [name, header] of Object.entries(this.headers)) {
      if (name === id) header.setAttribute("aria-sort", this.#sort.down ? "descending" : "ascending");
      else header.removeAttribute("aria-sort");
    }
    this.#dirty = true;
    this.#arrange();
    this.box.scrollTop = 0;
    this.#draw();
    this.#need();
  }

  #key(event) {
    const row = event.target.closest?.(".row");
    if (!row || event.altKey || event.ctrlKey || event.metaKey) return;
    const height = this.#height();
    const at = Number(row.getAttribute("aria-rowindex")) - 2;
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: Math.floor(this.box.clientHeight / height),
      PageUp: -Math.floor(this.box.clientHeight / height), Home: -at, End: this.#order.length - 1 - at }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    const to = Math.max(0, Math.min(this.#order.length - 1, at + step));
    if (to * height < this.box.scrollTop) this.box.scrollTop = to * height;
    else if ((to + 1) * height > this.box.scrollTop + this.box.clientHeight) {
      this.box.scrollTop = (to + 1) * height - this.box.clientHeight;
    }
    this.#draw();
    this.#rows.get(this.#order[to].name)?.element.querySelector("a").focus({ preventScroll: true });
  }

  #frame() {
    let typing;
    const filter = h("input", { type: "search", placeholder: "Names that begin with …", autocomplete: "off",
      spellcheck: "false", input: () => {
        clearTimeout(typing);
        typing = setTimeout(() => {
          if (filter.value === this.#prefix) return;
          this.#prefix = filter.value;
          this.#begin();
          this.#draw();
        }, 200);
      } });
    this.count = h("span", { class: "count", role: "status" }, "…");
    this.totalLine = s("path");
    this.totalText = h("strong", null, "0/s");
    this.why = h("p", { class: "notice bad", hidden: true });
    this.headers = Object.fromEntries(columns.map(({ id, label }) => [id, h("div", { role: "columnheader", class: id,
      "aria-sort": id === "name" && "ascending" },
    h("button", { type: "button", click: () => this.#sortBy(id) }, label))]));
    this.body = h("div", { class: "rows", role: "rowgroup" });
    this.box = h("div", { class: "scroll", role: "presentation", scroll: () => { this.#draw(); this.#need(); },
      keydown: (event) => this.#key(event) }, this.body);
    this.table = h("div", { class: "table", role: "table", "aria-label": "Streams", "aria-rowcount": "-1" },
      h("div", { role: "rowgroup" }, h("div", { role: "row", class: "row headers", "aria-rowindex": "1" },
        Object.values(this.headers))), this.box);
    this.welcome = h("div", null, h("h2", null, "No streams yet"),
      h("p", null, "The first event that is appended makes one:"),
      h("pre", { tabindex: "0" }, `curl -d '{"data":{"type":"message","text":"hello"}}' \\\n  ` +
        `${location.href.replace(/[#?].*/, "")}streams/greetings`), h("p", null, "It appears here as it comes."));
    this.none = h("div", { class: "none", hidden: true }, this.welcome);
    this.fresh = h("p", { class: "fresh", hidden: true });
    return h("div", { class: "list" },
      h("div", { class: "head" }, h("h1", null, "Streams"), this.count,
        h("div", { class: "total" }, h("span", null, this.totalText, " new events"),
          s("svg", { viewBox: "0 0 100 24", preserveAspectRatio: "none", "aria-hidden": "true" }, this.totalLine))),
      h("form", { class: "tools", role: "search", submit: (event) => event.preventDefault() },
        h("label", { class: "field wide" }, h("span", null, "Filter by prefix"), filter)),
      this.why, this.fresh, this.table, this.none);
  }
}
