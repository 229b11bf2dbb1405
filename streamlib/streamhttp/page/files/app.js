// Which view is shown, the token, and what is common to all.

import { h, seen, plain, say } from "./text.js";
import { onLocked, token } from "./server.js";
import { ListView } from "./list.js";
import { StreamView } from "./stream.js";

const at = (id) => document.getElementById(id);
let view = null;

const app = {
  // status says how the view's connection is.
  status(state, text, why = "") {
    const status = at("status");
    if (status.dataset.state !== state) status.dataset.state = state;
    say(status, text);
    status.title = plain(why);
  },

  // tell says what was done, or what went wrong, for a while.
  tell(text, kind = "good") {
    const note = h("p", { class: `toast ${kind}`, role: kind === "bad" ? "alert" : "status" }, seen(text));
    document.querySelector(".toasts").append(note);
    setTimeout(() => note.remove(), kind === "bad" ? 12_000 : 5_000);
  },

  // hear says something to those alone who listen.
  hear(text) { at("news").textContent = text; },

  async copy(text) {
    try {
      await navigator.clipboard.writeText(text);
    } catch { // the page is not of a secure context
      const area = h("textarea", { class: "heard", "aria-hidden": "true" });
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    app.tell("Copied");
  },
};

// show shows the view that the address names: #/stream/NAME, or #/stream/NAME/OFFSET, or else the list.
function show() {
  view?.close();
  const [, kind, name, offset] = location.hash.split("/");
  view = null;
  if (kind === "stream" && name) {
    try {
      view = new StreamView(decodeURIComponent(name), /^\d+$/.test(offset) ? Number(offset) : null, app);
    } catch {
      app.tell("That is no address of a stream.", "bad");
    }
  }
  view ??= new ListView(app);
  const stream = view instanceof StreamView;
  document.title = stream ? `${view.title} · streamd` : "streamd";
  at("where").replaceChildren(...(stream ? [h("a", { href: "#/" }, "Streams"),
    h("span", { "aria-hidden": "true" }, "/"), h("bdi", { "aria-current": "page" }, seen(view.name))] : []));
  at("main").replaceChildren(view.element);
  tokenButton(false);
  view.open();
}

// tokenButton offers to forget the token, or where one is wanted to give one.
function tokenButton(wanted) {
  const has = token.get() !== "";
  at("forget").hidden = !has && !wanted;
  say(at("forget"), has ? "Forget token" : "Give a token");
}

let asking = null;

// unlock asks for a token, once however many requests wait for one.
function unlock(used, message) {
  if (token.get() !== used) return true; // there is another one by now
  asking ??= new Promise((done) => {
    const input = h("input", { type: "password", autocomplete: "off", spellcheck: "false", required: true,
      autofocus: true });
    const wrong = h("p", { class: "notice bad", role: "alert", hidden: !used }, plain(message));
    const dialog = h("dialog", { "aria-labelledby": "token-title", close: () => {
      dialog.remove();
      asking = null;
      tokenButton(token.get() === "");
      done(token.get() !== used);
    } }, h("form", { submit: (event) => {
      event.preventDefault();
      token.set(input.value.trim());
      dialog.close();
    } }, h("h2", { id: "token-title" }, "This server wants a token"),
    h("p", null, "It is kept for this tab alone, until that is closed."),
    wrong, h("label", { class: "field" }, h("span", null, "Token"), input,
      h("small", null, "Who runs the server makes one with streamctl token create.")),
    h("p", { class: "do" }, h("button", { type: "button", click: () => dialog.close() }, "Cancel"),
      h("button", { type: "submit", class: "main" }, "Use it"))));
    document.body.append(dialog);
    dialog.showModal();
  });
  return asking;
}

onLocked(unlock);
at("forget").addEventListener("click", () => { token.forget(); show(); });
at("skip").addEventListener("click", () => at("main").focus());
document.body.append(h("div", { class: "toasts" }));
window.addEventListener("hashchange", () => { show(); at("main").focus({ preventScroll: true }); });
show();

fetch("healthz").then((r) => r.json()).then((health) => {
  at("about").replaceChildren(h("span", null, `streamd ${plain(health.version)}`),
    ...(health.dir ? [h("span", { class: "dir" }, seen(health.dir))] : []),
    h("span", null, health.storage === "memory" ? "in memory: lost when the server ends" : "on disk"));
}).catch(() => {});
