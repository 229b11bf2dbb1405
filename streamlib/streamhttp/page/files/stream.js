// A stream: what it has, live, and what can be done with it.

import { h, s, seen, plain, say, number, counted, size, moment, bars } from "./text.js";
import { ask, json, path, Subscription } from "./server.js";
import { padded } from "./event.js";
import { Log } from "./log.js";
import { appendBox, confirm } from "./forms.js";

const buckets = 80; // of the plot
const refreshEvery = 4_000; // how often what is known of the whole stream is asked for again while that changes

// StreamView shows the stream called name, and the event at offset where one is given.
export class StreamView {
  #facts = {}; // {tail, life, first, size, created, updated, closed, damage}, as a list tells it
  #state = "connecting"; // caughtup, behind, lost, closed, deleted, refused
  #why = "";
  #tail = 0; // as far as is known
  #asked = -1; // the tail when the facts were asked for
  #counts; // of the plot
  #types = new Set();
  #heard = 0; // how many events were told to who listens

  constructor(name, offset, app) {
    this.name = name;
    this.app = app;
    this.start = offset;
    this.element = this.#frame();
  }

  get title() { return plain(this.name); }

  open() {
    this.log = new Log(this.name, { changed: () => this.#changed(), typed: (type) => this.#typed(type),
      failed: (error) => this.app.tell(error.message, "bad"), copy: (text) => this.app.copy(text) });
    this.element.querySelector(".log-place").replaceWith(this.log.box);
    this.#subscribe();
    this.#refresh();
    this.timer = setInterval(() => this.#refresh(), refreshEvery);
  }

  close() {
    this.subscription?.stop();
    this.log.close();
    clearInterval(this.timer);
  }

  #subscribe() {
    this.subscription?.stop();
    const types = this.log.types.map((type) => `&type=${encodeURIComponent(type)}`).join("");
    let begun = false; // the log
    const begin = (tail) => {
      begun = true;
      this.#tail = Math.max(this.#tail, tail);
      this.log.begin(tail);
      if (this.start !== null) this.log.jump(this.start);
      this.start = null;
    };
    this.#turn("connecting");
    this.subscription = new Subscription(path(this.name, `?offset=now${types}`), {
      opened: () => this.#turn("behind"),
      event: (id, type, data) => {
        const next = parseInt(id, 10) + 1;
        if (type === "position") {
          const tail = Number(JSON.parse(data).tail ?? next);
          this.#tail = Math.max(this.#tail, tail);
          if (!begun) begin(tail);
          else this.log.passed(next);
        } else if (type === "end") {
          this.#end();
        } else {
          this.#tail = Math.max(this.#tail, next);
          this.log.live(data);
        }
      },
      comment: (text) => {
        if (text.startsWith("tail ")) {
          this.#tail = Number(text.slice(5));
          this.#turn("caughtup");
        } else if (text === "deleted") {
          this.#deleted();
        }
      },
      ready: () => this.#changed(),
      lost: (error, wait) => this.#turn("lost", `${error.message}; trying again in ${Math.ceil(wait)} s`),
      ended: (response) => {
        const tail = Number(response.headers.get("Stream-Next-Offset") ?? this.#tail);
        if (!begun) begin(tail);
        this.#end();
      },
      refused: (refusal) => this.#refused(refusal, begun),
    }).start();
  }

  #end() {
    this.subscription.stop();
    this.#turn("closed");
    this.#asked = -1;
    this.#refresh();
  }

  #deleted() {
    this.subscription.stop();
    this.app.tell("This stream was deleted. What is appended to its name from now on is another stream.", "bad");
    this.log.first = this.#tail = 0;
    this.#facts = {};
    this.#asked = -1;
    this.#counts = null;
    this.#subscribe();
    this.#refresh();
  }

  // refused says why nothing can be followed, and tells whether it is to be tried again.
  #refused(refusal, begun) {
    if (refusal.status === 410) { // what was seen is of a stream that was deleted, or what follows it was dropped
      if (refusal.problem.first) this.log.first = Number(refusal.problem.first);
      else this.log.first = 0;
      this.app.tell(refusal.problem.first ? "Events that were not seen yet were dropped meanwhile."
        : "This stream was deleted meanwhile. This is another one of its name.", "bad");
      this.#tail = 0;
      this.#subscribe();
      return false;
    }
    if (refusal.problem.damage && !begun) { // what stands before the damage can be read
      this.#turn("refused", refusal.message);
      this.log.begin(0);
      this.log.next = Number.MAX_SAFE_INTEGER;
      this.log.jump(0);
      return false;
    }
    const passing = refusal.status >= 500 || refusal.status === 429 || refusal.status === 408;
    this.#turn(passing ? "lost" : "refused", refusal.message);
    return passing;
  }

  #turn(state, why = "") {
    this.#state = state;
    this.#why = why;
    this.#changed();
  }

  // changed says how it stands, in one place.
  #changed() {
    if (!this.log) return;
    const { log } = this;
    const missed = log.missed;
    let state = this.#state, text;
    switch (state) {
      case "connecting": text = "Connecting"; break;
      case "lost": text = "Broken off"; break;
      case "refused": text = "Not followed"; break;
      case "closed": text = missed > 0 ? `Closed · ${number(missed)} further on` : "Closed"; break;
      default:
        if (this.#tail > log.next) [state, text] = ["behind", `Behind by ${number(this.#tail - log.next)}`];
        else if (state === "behind") text = "Catching up";
        else if (log.following) text = "Caught up";
        else [state, text] = ["paused", missed > 0 ? `Paused · ${number(missed)} newer` : "Paused"];
    }
    this.app.status(state, text, this.#why);
    say(this.why, this.#why);
    this.why.hidden = this.#why === "";
    const going = log.following;
    this.follow.setAttribute("aria-pressed", going);
    say(this.follow, going ? "Pause" : missed > 0 ? `Follow (${number(missed)} newer)` : "Follow");
    this.search.hidden = !log.searching;
    this.empty.hidden = log.rows > 0 || log.searching || this.#state === "connecting";
    say(this.empty, log.types.length > 0 || log.text ? "No event that there is matches."
      : this.#facts.tail > 0 ? "No event is kept." : "No event yet. The first one that is appended makes the stream.");
    say(this.events, counted(Math.max(0, this.#tail - log.first), "event"));
    this.#mark();
    this.#hear();
  }

  // hear tells who listens how many events came, when there is a moment.
  #hear() {
    const { log } = this;
    const new_ = log.next - this.#heard;
    if (new_ <= 0 || this.hearing) return;
    const first = this.#heard === 0;
    this.hearing = setTimeout(() => {
      this.hearing = null;
      if (!first && log.next > this.#heard) this.app.hear(`${counted(log.next - this.#heard, "new event")}`);
      this.#heard = log.next;
    }, first ? 0 : 3000);
  }

  #typed(type) {
    if (this.#types.has(type) || this.#types.size >= 200) return;
    this.#types.add(type);
    this.typeList.append(h("option", { value: type }));
  }

  // refresh asks what is known of the whole stream, where that may have changed.
  async #refresh() {
    if (this.#asked === this.#tail || this.refreshing || document.hidden) return;
    this.refreshing = true;
    const asked = this.#tail;
    try {
      const prefix = encodeURIComponent(this.name); // of which the name itself is the first
      const { streams } = await ask(`streams?details=true&limit=1&prefix=${prefix}`, json);
      this.#facts = facts(streams.find(({ name }) => name === this.name) ?? {});
      const since = this.span.value ? `&since=${this.span.value}` : "";
      this.#plot(await ask(path(this.name, `/times?buckets=${buckets}${since}`), json));
      this.#asked = asked;
    } catch {
      // The subscription says what is wrong.
    }
    this.refreshing = false;
    this.#tell();
  }

  #tell() {
    const facts = this.#facts;
    if (facts.first > this.log.first) this.log.first = facts.first;
    this.#tail = Math.max(this.#tail, facts.tail ?? 0);
    this.badges.replaceChildren(...[
      facts.closed && h("span", { class: "badge closed" }, "closed"),
      facts.first > 0 && h("span", { class: "badge" }, `begins at ${number(facts.first)}`),
      facts.damage && h("span", { class: "badge bad" }, "damaged"),
    ].filter(Boolean));
    this.facts.replaceChildren(this.events, ...(facts.tail > 0 ? [size(facts.size),
      facts.created && `since ${moment(facts.created)}`, facts.updated && `last ${moment(facts.updated)}`]
      : []).filter(Boolean).map((text) => h("span", null, text)));
    this.damage.hidden = !facts.damage;
    say(this.damage, facts.damage ? plain(facts.damage) : "");
    this.#changed();
  }

  #plot(times) {
    const { counts } = this.#counts = times;
    times.offset = Number(times.first);
    bars(this.bars, counts);
    const all = counts.reduce((sum, n) => sum + n, 0);
    this.plot.hidden = all === 0 && !this.span.value;
    if (!times.from) return;
    const [from, to] = [new Date(times.from), new Date(times.to)];
    say(this.from, moment(from));
    say(this.to, moment(to));
    const most = counts.indexOf(Math.max(...counts));
    const at = new Date(from.getTime() + (to - from) * most / counts.length);
    this.bars.setAttribute("aria-label", `${counted(all, "event")} from ${moment(from)} to ${moment(to)}` +
      (all > 0 ? `, the most of them about ${moment(at)}` : ""));
    this.#mark();
  }

  // mark shows in the plot where what is in view is.
  #mark() {
    const shown = this.log.shown();
    if (!this.#counts || !shown) { this.view.style.width = "0"; return; }
    const { counts, offset } = this.#counts;
    const place = (o) => {
      let before = offset;
      for (let i = 0; i < counts.length; i++) {
        if (o < before + counts[i]) return i + (counts[i] ? (o - before) / counts[i] : 0);
        before += counts[i];
      }
      return counts.length;
    };
    const from = 100 * place(shown.from) / counts.length, to = 100 * place(shown.to + 1) / counts.length;
    this.view.style.left = `${from}%`;
    this.view.style.width = `${Math.max(0.4, to - from)}%`;
  }

  // pick shows the events of the bar that was clicked.
  #pick(event) {
    if (!this.#counts) return;
    const box = this.bars.getBoundingClientRect();
    const { counts, offset } = this.#counts;
    const bar = Math.floor(counts.length * (event.clientX - box.left) / box.width);
    this.log.jump(counts.slice(0, bar).reduce((sum, n) => sum + n, offset));
  }

  // jump goes to an offset or a time.
  async #jump(text) {
    text = text.trim();
    if (text === "") return;
    if (/^\d+$/.test(text)) {
      this.log.jump(Number(text));
      return;
    }
    let since = text;
    if (/^\d\d:\d\d(:\d\d)?$/.test(text)) since = `${new Date().toLocaleDateString("sv")}T${text}`;
    if (/^\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d+)?)?)?$/.test(since)) { // as clocks here show it
      const local = new Date(since.includes(":") ? since.replace(" ", "T") : `${since}T00:00`);
      if (!Number.isNaN(local.getTime())) since = local.toISOString();
    }
    try {
      const { events } = await ask(path(this.name, `/events?limit=1&since=${encodeURIComponent(since)}`), json);
      if (events.length === 0) this.app.tell("There is no event since then.");
      await this.log.jump(events.length > 0 ? Number(events[0].offset) : this.log.next);
    } catch (error) {
      this.app.tell(error.message, "bad");
    }
  }

  #frame() {
    const field = (label, input) => h("label", { class: "field" }, h("span", null, label), input);
    let typing;
    const onType = () => {
      clearTimeout(typing);
      typing = setTimeout(() => {
        const types = this.typeInput.value === "" ? [] : [this.typeInput.value];
        if (String(types) !== String(this.log.types)) {
          this.log.types = types;
          this.#subscribe();
        }
        if (this.textInput.value.toLowerCase() !== this.log.text) this.log.filter(this.textInput.value);
      }, 250);
    };
    this.typeList = h("datalist", { id: "types" });
    this.typeInput = h("input", { list: "types", placeholder: "any", autocomplete: "off", spellcheck: "false",
      input: onType });
    this.textInput = h("input", { type: "search", placeholder: "any", autocomplete: "off", spellcheck: "false",
      input: onType });
    this.jumpInput = h("input", { placeholder: "42, 15m, 09:30", autocomplete: "off", spellcheck: "false",
      "aria-describedby": "jump-help", enterkeyhint: "go" });
    this.follow = h("button", { type: "button", "aria-pressed": "true", class: "main",
      click: () => this.log.pause(this.log.following) }, "Pause");
    this.search = h("p", { class: "searching", hidden: true }, "Looking for events that match. ",
      h("button", { type: "button", class: "small", click: () => this.log.stop() }, "Stop"));
    this.empty = h("p", { class: "empty", hidden: true });
    this.why = h("p", { class: "notice bad", hidden: true });
    this.damage = h("p", { class: "notice bad", hidden: true });
    this.badges = h("span", { class: "badges" });
    this.events = h("span", null);
    this.facts = h("p", { class: "facts" }, this.events);
    this.bars = s("svg", { class: "bars", role: "img", "aria-label": "Events over time", preserveAspectRatio: "none",
      click: (event) => this.#pick(event) });
    this.view = h("div", { class: "in-view" });
    this.from = h("span", null);
    this.to = h("span", null);
    this.span = h("select", { "aria-label": "The time that the plot shows", change: () => {
      this.#asked = -1;
      this.#refresh();
    } }, [["", "all the time"], ["7d", "7 days"], ["1d", "24 hours"], ["1h", "an hour"], ["5m", "5 minutes"]].map(
      ([value, label]) => h("option", { value }, label)));
    this.plot = h("section", { class: "plot", "aria-label": "Events over time", hidden: true },
      h("div", { class: "drawn" }, this.bars, this.view), h("p", { class: "axis" }, this.from, this.span, this.to));
    const act = (label, kind) => h("button", { type: "button", class: "danger",
      click: () => confirm(kind, this.name, { life: this.#facts.life ?? 0, next: this.log.next, first: this.log.first,
        app: this.app, done: () => { this.#asked = -1; this.#refresh(); } }) }, label);
    return h("div", { class: "stream" },
      h("div", { class: "head" }, h("h1", null, h("bdi", null, seen(this.name)), " ", this.badges), this.facts),
      this.damage, this.why,
      h("div", { class: "sides" },
        h("div", { class: "left" }, this.plot,
          h("form", { class: "tools", "aria-label": "What is shown", submit: (event) => {
            event.preventDefault();
            this.#jump(this.jumpInput.value);
          } }, field("Type", this.typeInput), this.typeList, field("Text", this.textInput),
          field("Go to offset or time", this.jumpInput), h("button", { type: "submit" }, "Go"),
          h("span", { id: "jump-help", class: "heard" },
            "An offset, how long ago such as 15m, or a time such as 09:30"), this.follow),
          this.search, this.empty, h("div", { class: "log-place" })),
        h("div", { class: "right" }, appendBox(this.name, { app: this.app,
          tag: () => (this.log.next > 0 ? `"${padded(this.log.next)}${suffix(this.#facts.life)}"` : "") }),
        h("p", { class: "ways" }, act("Close…", "close"), act("Trim…", "trim"), act("Delete…", "delete")))));
  }
}

const suffix = (life) => (life > 0 ? `-${life}` : "");

// facts are what a list tells of a stream.
function facts({ nextOffset, life, first, size, createdAt, updatedAt, closed, damage, error }) {
  const date = (text) => (text ? new Date(text) : null);
  return { tail: Number(nextOffset ?? 0), life: life ?? 0, first: Number(first ?? 0), size: size ?? 0,
    created: date(createdAt), updated: date(updatedAt), closed: closed === true,
    damage: damage && (error ?? "It is damaged.") };
}
