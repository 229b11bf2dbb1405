// Requests, one after the other, and subscriptions, which go on where they were.

const tokenKey = "streamd.token"; // of sessionStorage, which is the tab's

export const token = {
  get: () => sessionStorage.getItem(tokenKey) ?? "",
  set: (value) => sessionStorage.setItem(tokenKey, value),
  forget: () => sessionStorage.removeItem(tokenKey),
};

// unlock asks a person for a token; app.js sets it.
let unlock = async () => false;
export const onLocked = (ask) => { unlock = ask; };

// path is that of a stream, with what stands behind the name. A browser takes "." and ".." for steps of a path, however
// they are written, so these stand in the query.
export function path(name, rest = "") {
  if (name !== "." && name !== "..") return `streams/${segment(name)}${rest}`;
  const [below, query] = rest.split("?");
  return `stream${below}?name=${name}${query ? `&${query}` : ""}`;
}

// segment is encodeURIComponent, with the quote of shells encoded too.
export const segment = (text) => encodeURIComponent(text).replace(/'/g, "%27");

// A Refusal is an answer that is an error.
export class Refusal extends Error {
  constructor(status, problem) {
    super(problem.error || `the server answers ${status}`);
    this.status = status;
    this.problem = problem;
  }
}

async function refusal(response) {
  const text = await response.text().catch(() => "");
  try {
    const problem = JSON.parse(text);
    return new Refusal(response.status, typeof problem?.error === "string" ? problem : {});
  } catch {
    return new Refusal(response.status, {});
  }
}

const longest = 60_000; // that a request may take

async function send(url, options) {
  const headers = { ...options.headers };
  for (;;) {
    const used = token.get();
    if (used) headers.Authorization = `Bearer ${used}`;
    else delete headers.Authorization;
    const response = await fetch(url, { ...options, headers, cache: "no-store", redirect: "error" });
    if (response.status !== 401 || !(await unlock(used, (await refusal(response.clone())).message))) return response;
  }
}

let last = Promise.resolve();

// ask sends a request behind those that were asked before, and returns what read makes of the answer.
export function ask(url, read = async (response) => response, options = {}) {
  const turn = last.then(async () => {
    options.signal?.throwIfAborted();
    const signals = [AbortSignal.timeout(longest)];
    if (options.signal) signals.push(options.signal);
    const response = await send(url, { ...options, signal: AbortSignal.any(signals) });
    if (!response.ok) throw await refusal(response);
    return read(response);
  });
  last = turn.catch(() => {});
  return turn;
}

export const json = (response) => response.json();

// lines yields the lines of an answer, without their ends.
export async function* lines(response) {
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let parts = []; // of a line that has not ended
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      const text = decoder.decode(value, { stream: true });
      let from = 0;
      for (let to; (to = text.indexOf("\n", from)) >= 0; from = to + 1) {
        parts.push(text.slice(from, to));
        yield parts.length === 1 ? parts[0] : parts.join("");
        parts = [];
      }
      if (from < text.length) parts.push(text.slice(from));
      yield null; // what has come was read
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

const silence = 45_000; // after which a connection is taken for lost: the server speaks each 15 s
const unseen = 5_000; // that a page may be before it gives its connection back

// A Subscription follows url until it is stopped. It calls
//   opened(response)       each time it is connected
//   event(id, type, data)  for each event, comment(text) for each comment, ready() behind those that came at once
//   lost(error, wait)      when the connection is lost, and will be tried again in so many seconds
//   ended(response)        when there will be no more, of a 204
//   refused(refusal)       when the server refuses: true to try again
export class Subscription {
  id = ""; // of the last event
  #stopped = new AbortController();
  #connection;

  constructor(url, on) {
    this.url = url;
    this.on = on;
  }

  start() {
    const stop = this.#stopped.signal;
    let late;
    document.addEventListener("visibilitychange", () => {
      clearTimeout(late);
      if (document.hidden) late = setTimeout(() => this.#connection?.abort(new Error("nobody sees the page")), unseen);
    }, { signal: stop });
    this.#run().catch((error) => { if (!stop.aborted) this.on.lost(error, 0); });
    return this;
  }

  stop() { this.#stopped.abort(new Error("stopped")); this.#connection?.abort(new Error("stopped")); }

  async #run() {
    const stop = this.#stopped.signal;
    for (let failed = 0; !stop.aborted;) {
      if (document.hidden) await once(document, "visibilitychange", stop);
      if (stop.aborted) return;
      if (document.hidden) continue;
      let error = new Error("the connection has ended");
      try {
        this.#connection = new AbortController();
        const response = await this.#connect();
        if (response.status === 204) {
          if (!stop.aborted) this.on.ended(response);
          return;
        }
        if (!response.ok) throw await refusal(response);
        failed = 0;
        await this.#read(response);
      } catch (failure) {
        error = failure;
      }
      if (stop.aborted) return;
      if (error instanceof Refusal && !this.on.refused(error)) return;
      if (document.hidden) continue;
      const wait = Math.min(10, 2 ** failed++) * (0.75 + Math.random() / 2);
      this.on.lost(error, wait);
      await Promise.race([new Promise((done) => setTimeout(done, wait * 1000)), once(window, "online", stop)]);
    }
  }

  #connect() {
    const headers = { Accept: "text/event-stream" };
    if (this.id) headers["Last-Event-ID"] = this.id;
    return send(this.url, { headers, signal: this.#connection.signal });
  }

  async #read(response) {
    const connection = this.#connection;
    let watchdog;
    const alive = () => {
      clearTimeout(watchdog);
      watchdog = setTimeout(() => connection.abort(new Error("the server is silent")), silence);
    };
    alive();
    this.on.opened(response);
    let id = "", type = "", data = "";
    try {
      for await (const text of lines(response)) {
        if (this.#stopped.signal.aborted) return;
        if (text === null) {
          alive();
          this.on.ready?.();
        } else if (text === "") {
          if (id) this.id = id;
          if (data || type) this.on.event(id, type, data);
          id = type = data = "";
        } else if (text.startsWith("data: ")) data = text.slice(6);
        else if (text.startsWith("id: ")) id = text.slice(4);
        else if (text.startsWith("event: ")) type = text.slice(7);
        else if (text.startsWith(": ")) this.on.comment?.(text.slice(2));
      }
    } finally {
      clearTimeout(watchdog);
      connection.abort();
    }
  }
}

function once(target, name, signal) {
  return new Promise((done) => {
    target.addEventListener(name, done, { once: true, signal });
    signal.addEventListener("abort", done, { once: true });
  });
}
