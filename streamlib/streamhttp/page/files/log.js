// The events of a stream that are in view, and some around them. However many there are, no more are kept.

import { h, plain, say, number } from "./text.js";
import { ask, lines, path } from "./server.js";
import { offsetOf, dataOf, rowOf, fold } from "./event.js";

const most = 400; // rows
const mostChars = 8 << 20; // of their data
const page = 100; // events that are asked for at once
const searched = 1000; // the same, where most of them will not be shown
const near = 400; // pixels before an end at which more is asked for

// A Log shows events of the stream called name in box. What it shows is [low, high) of the stream, less what filters
// leave out; next is the offset of the next event that the subscription will tell of, so that high === next is to have
// all. On says changed() when any of that has, typed(type) of each type, and failed(error).
export class Log {
  low = 0;
  high = 0;
  next = 0;
  first = 0; // that is kept, as far as is known
  types = []; // that are shown, all where there are none
  text = ""; // that the data must have
  following = true; // the end is shown
  paused = false; // a person said so
  searching = false;
  #rows = []; // {offset, data, element}
  #chars = 0;
  #pending = [];
  #drawing = 0;
  #loading = null; // what is asked for
  #top = 0; // where the box was scrolled to
  #size = 200; // bytes of an event, about

  constructor(name, on) {
    this.name = name;
    this.on = on;
    this.list = h("ol", { class: "events" });
    this.above = h("p", { class: "edge" });
    this.below = h("p", { class: "edge" });
    this.box = h("div", { class: "log", role: "region", "aria-label": `Events of ${plain(name)}`,
      scroll: () => this.#scrolled(), keydown: (event) => this.#key(event), tabindex: "0" },
    this.above, this.list, this.below);
    this.resized = new ResizeObserver(() => this.#settle());
    this.resized.observe(this.box);
  }

  close() {
    this.#loading?.abort();
    this.resized.disconnect();
    cancelAnimationFrame(this.#drawing);
  }

  get rows() { return this.#rows.length; }
  get missed() { return Math.max(0, this.next - this.high); }

  // begin shows the end, at next.
  begin(next) {
    this.next = next;
    this.paused = false;
    this.#reset(next);
    this.following = true;
    this.#load(async (signal) => { await this.#fill(signal); });
  }

  // live is an event of the subscription, in order.
  live(text) {
    const offset = offsetOf(text);
    const whole = this.high >= this.next;
    this.next = Math.max(this.next, offset + 1);
    if (offset < this.high) return;
    if (whole && this.following) {
      this.high = offset + 1;
      if (this.#matches(text)) this.#pending.push(text);
      if (this.#pending.length > 2 * most) {
        this.#pending = this.#pending.slice(-most);
        this.#clear();
        this.low = offsetOf(this.#pending[0]);
      }
    }
    this.#soon();
  }

  // passed says that the events before next were told, those that the filter left out too.
  passed(next) {
    const whole = this.high >= this.next;
    this.next = Math.max(this.next, next);
    if (whole && this.following) this.high = Math.max(this.high, next);
    this.#soon();
  }

  // pause holds what is shown, or goes on at the end.
  pause(hold) {
    this.paused = hold;
    if (hold) {
      this.following = false;
      this.on.changed();
    } else if (this.high >= this.next) {
      this.following = true;
      this.#settle();
      this.on.changed();
    } else {
      this.begin(this.next);
    }
  }

  // jump shows the events from offset on.
  jump(offset) {
    this.following = false;
    this.#reset(Math.min(Math.max(offset, this.first), this.next));
    return this.#load(async (signal) => {
      const at = this.low;
      await this.#after(signal);
      await this.#fill(signal);
      const row = this.#rows.find((row) => row.offset >= at) ?? this.#rows.at(-1);
      if (row) {
        this.box.scrollTop += row.element.getBoundingClientRect().top - this.box.getBoundingClientRect().top - 8;
        row.element.classList.add("target");
        this.#focus(row.element.firstChild);
      }
    });
  }

  // filter shows those events alone that have the text in their data.
  filter(text) {
    this.text = text.toLowerCase();
    this.begin(this.next);
  }

  // shown are the offsets of the first and the last row that can be seen.
  shown() {
    if (this.#rows.length === 0) return null;
    const view = this.box.getBoundingClientRect();
    const inView = this.#rows.filter(({ element }) => {
      const at = element.getBoundingClientRect();
      return at.bottom > view.top && at.top < view.bottom;
    });
    return inView.length === 0 ? null : { from: inView[0].offset, to: inView.at(-1).offset };
  }

  #reset(offset) {
    this.#loading?.abort();
    this.#loading = null;
    this.searching = false;
    this.#pending = [];
    this.#clear();
    this.low = this.high = offset;
  }

  #clear() {
    this.#rows = [];
    this.#chars = 0;
    this.list.replaceChildren();
  }

  #matches(text) {
    if (this.text === "") return true;
    const data = dataOf(text);
    if (data.toLowerCase().includes(this.text)) return true;
    // What the sender has escaped is found as well.
    return data.includes("\\") && JSON.stringify(JSON.parse(data)).toLowerCase().includes(this.text);
  }

  #soon() {
    if (this.#drawing) return;
    this.#drawing = requestAnimationFrame(() => {
      this.#drawing = 0;
      if (this.#pending.length > 0) {
        const came = this.#pending.slice(-most);
        if (came.length < this.#pending.length) {
          this.#clear();
          this.low = offsetOf(came[0]);
        }
        this.#pending = [];
        this.#append(came);
      }
      this.#settle();
      this.on.changed();
    });
  }

  // settle keeps the end in view.
  #settle() {
    if (!this.following) return;
    this.box.scrollTop = this.box.scrollHeight;
    this.#top = this.box.scrollTop;
  }

  #append(texts) {
    const rows = texts.map((text) => this.#row(text));
    this.#rows.push(...rows);
    this.list.append(...rows.map((row) => row.element));
    let over = 0;
    let chars = this.#chars;
    while (this.#rows.length - over > most || chars > mostChars && over < this.#rows.length - 1) {
      chars -= this.#rows[over++].data.length;
    }
    if (over === 0) return;
    const before = this.box.scrollHeight;
    for (const row of this.#rows.splice(0, over)) row.element.remove();
    this.#chars = chars;
    this.low = this.#rows[0].offset;
    if (!this.following) this.box.scrollTop -= before - this.box.scrollHeight;
  }

  #prepend(texts) {
    const before = this.box.scrollHeight;
    const rows = texts.map((text) => this.#row(text));
    this.#rows.unshift(...rows);
    this.list.prepend(...rows.map((row) => row.element));
    this.box.scrollTop += this.box.scrollHeight - before;
    this.#top = this.box.scrollTop;
    if (this.following) return; // there was room
    let over = 0;
    while (this.#rows.length - over > most || this.#chars > mostChars && over < this.#rows.length - 1) {
      this.#chars -= this.#rows[this.#rows.length - 1 - over++].data.length;
    }
    if (over === 0) return;
    const gone = this.#rows.splice(-over);
    this.high = gone[0].offset;
    for (const row of gone) row.element.remove();
  }

  // load runs one thing that asks for events, in place of what else does.
  async #load(work) {
    this.#loading?.abort();
    const control = this.#loading = new AbortController();
    try {
      await work(control.signal);
    } catch (error) {
      if (!control.signal.aborted) {
        const first = Number(error.problem?.first ?? 0);
        if (error.status === 410 && first > this.first) { // it was trimmed meanwhile
          this.first = first;
          this.jump(first);
          return;
        }
        this.on.failed(error);
      }
    }
    if (this.#loading !== control) return;
    this.#loading = null;
    this.searching = false;
    this.#settle();
    this.#edges();
    this.on.changed();
  }

  stop() { this.#loading?.abort(); this.#loading = null; this.searching = false; this.on.changed(); }

  // fill asks for what is before until the box is full.
  async #fill(signal) {
    do {
      if (!(await this.#before(signal))) break;
      this.#settle();
    } while (this.list.offsetHeight < this.box.clientHeight + near);
  }

  #step() { return this.text ? searched : Math.max(1, Math.min(page, Math.floor((2 << 20) / this.#size))); }

  #query(parameters) {
    const types = this.types.map((type) => `&type=${encodeURIComponent(type)}`).join("");
    return path(this.name, `/events?${parameters}${types}`);
  }

  // before asks for the events before low, and tells whether there may be more.
  async #before(signal) {
    if (this.low <= this.first) return false;
    const limit = this.#step(), low = this.low;
    const { texts, count, from } = await this.#read(`before=${low}&last=${limit}`, signal);
    if (signal.aborted) return false;
    if (this.low !== low) return true; // so much came meanwhile that these are not next to what is shown
    this.low = count < limit ? this.first : from;
    const room = Math.max(0, most - this.#rows.length);
    if (this.following && texts.length > room) { // the end stays
      this.low = offsetOf(texts[texts.length - room] ?? texts.at(-1)) + (room === 0 ? 1 : 0);
      this.#prepend(texts.slice(texts.length - room));
      return false;
    }
    this.#prepend(texts);
    this.#progress();
    return this.low > this.first;
  }

  // after asks for the events from high on, and tells whether there may be more.
  async #after(signal) {
    const known = this.next, high = this.high;
    if (high >= known) return false;
    const limit = this.#step();
    const { texts, count, to } = await this.#read(`offset=${high}&limit=${limit}`, signal);
    if (signal.aborted || this.high !== high) return false;
    this.high = Math.max(to, count < limit ? known : 0);
    this.next = Math.max(this.next, this.high);
    this.#append(texts);
    this.#progress();
    return this.high < this.next;
  }

  // read asks for events, and keeps of them those that match.
  async #read(query, signal) {
    const texts = [];
    let count = 0, chars = 0, from = 0, to = 0;
    await ask(this.#query(query), async (response) => {
      this.first = Math.max(this.first, Number(response.headers.get("Stream-First-Offset") ?? 0));
      for await (const text of lines(response)) {
        if (!text) continue;
        if (count++ === 0) from = offsetOf(text);
        to = offsetOf(text) + 1;
        chars += text.length;
        if (this.#matches(text)) texts.push(text);
      }
    }, { headers: { Accept: "application/x-ndjson" }, signal });
    if (count > 0) this.#size = chars / count;
    return { texts, count, from, to };
  }

  #progress() {
    this.searching = this.text !== "";
    this.#edges();
    this.on.changed();
  }

  #edges() {
    say(this.above, this.low > this.first ? (this.text ? `Looked through from ${number(this.low)} on` : "")
      : this.first > 0 ? `The events before ${number(this.first)} were dropped` : this.next > 0 ? "The beginning" : "");
  }

  #scrolled() {
    const top = this.box.scrollTop;
    const rest = this.box.scrollHeight - this.box.clientHeight - top;
    if (this.following && rest > 40 && top < this.#top - 1) {
      this.following = false;
      this.on.changed();
    } else if (!this.following && !this.paused && rest < 4 && top > this.#top && this.high >= this.next) {
      this.following = true;
      this.on.changed();
    }
    this.#top = top;
    if (this.#loading) return;
    if (top < near && this.low > this.first) this.#load((signal) => this.#more(signal));
    else if (rest < near && !this.following && this.high < this.next) this.#load((signal) => this.#after(signal));
    this.on.changed();
  }

  // more asks for what is before until there is something, which a search may take long for.
  async #more(signal) {
    const had = this.#rows[0]?.offset;
    while (await this.#before(signal)) {
      if (this.#rows[0]?.offset !== had) break;
    }
  }

  #row(text) {
    const row = rowOf(text, () => this.#fold(row));
    this.#chars += row.data.length;
    if (row.type) this.on.typed(row.type);
    return row;
  }

  #fold(row) {
    this.#focus(row.element.firstChild);
    if (fold(row, this.name, this.on.copy) && this.following) {
      this.following = false;
      this.on.changed();
    }
  }

  #focus(button) {
    for (const other of this.list.querySelectorAll('button.line[tabindex="0"]')) other.tabIndex = -1;
    button.tabIndex = 0;
    button.focus({ preventScroll: true });
  }

  #key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || event.target.closest(".detail")) return;
    const lines = this.#rows.map((row) => row.element.firstChild);
    const at = lines.indexOf(document.activeElement);
    let to;
    if (event.key === "ArrowDown" || event.key === "j") to = at < 0 ? lines[0] : lines[at + 1];
    else if (event.key === "ArrowUp" || event.key === "k") to = at < 0 ? lines.at(-1) : lines[at - 1];
    else if (event.key === "Home") this.jump(this.first);
    else if (event.key === "End") this.pause(false);
    else if (event.key === "p") this.pause(this.following);
    else return;
    event.preventDefault();
    if (!to) return;
    this.#focus(to);
    to.scrollIntoView({ block: "nearest" });
  }
}
