// Appending, and what asks before it is done.

import { h, seen, plain, number } from "./text.js";
import { ask, path } from "./server.js";

let counter = 0;

// field is a labelled input, with a hint.
function field(label, input, hint) {
  if (hint) {
    const id = `hint-${++counter}`;
    input.setAttribute("aria-describedby", id);
    return h("label", { class: "field" }, h("span", null, label), input, h("small", { id }, hint));
  }
  return h("label", { class: "field" }, h("span", null, label), input);
}

// problem tells what is wrong with a JSON text, "" where nothing is.
function problem(text) {
  if (text.trim() === "") return "";
  try {
    JSON.parse(text);
    return "";
  } catch (error) {
    return plain(error.message);
  }
}

// appendBox is the form that appends to the stream called name. Tag returns the ETag of the tail that the person has
// seen, "" where there are no events.
export function appendBox(name, { tag, app }) {
  const data = h("textarea", { rows: "3", spellcheck: "false", autocapitalize: "off", autocomplete: "off",
    placeholder: '{"type": "message", "text": "hello"}', required: true });
  const checked = h("p", { class: "checked", role: "status" });
  const key = h("input", { autocomplete: "off", spellcheck: "false" });
  const condition = h("select", null,
    h("option", { value: "" }, "always"),
    h("option", { value: "seen" }, "only if nothing came since what is shown"),
    h("option", { value: "empty" }, "only if there are no events"));
  const button = h("button", { type: "submit", class: "main" }, "Append");
  const check = () => {
    const wrong = problem(data.value);
    data.setAttribute("aria-invalid", wrong !== "");
    checked.dataset.state = wrong ? "bad" : "good";
    checked.textContent = data.value.trim() === "" ? "" : wrong || "This is JSON.";
    return wrong === "";
  };
  const append = async () => {
    if (!check() || data.value.trim() === "") {
      data.focus();
      return;
    }
    const headers = { "Content-Type": "application/json" };
    if (key.value) headers["Idempotency-Key"] = key.value;
    const seenTag = tag();
    if (condition.value === "empty" || condition.value === "seen" && seenTag === "") headers["If-None-Match"] = "*";
    else if (condition.value === "seen") headers["If-Match"] = seenTag;
    button.disabled = true;
    try {
      // The text as it is, for its numbers may be more than JSON.parse keeps; it is one value, as was checked.
      const [event, status] = await ask(path(name), async (r) => [await r.json(), r.status], { method: "POST", headers,
        body: `{"data":${data.value}}` });
      app.tell(status === 200 ? `It was there already, at ${number(Number(event.offset))}.`
        : `Appended at ${number(Number(event.offset))}.`);
      data.value = "";
      check();
    } catch (error) {
      app.tell(error.message, "bad");
    }
    button.disabled = false;
  };
  data.addEventListener("input", check);
  data.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) append();
  });
  return h("form", { class: "append", "aria-label": "Append an event", submit: (event) => {
    event.preventDefault();
    append();
  } }, field("Append JSON", data), checked, h("details", { class: "more" }, h("summary", null, "Key and condition"),
    h("div", { class: "tools" }, field("Key", key, "Sent again with the same key, it is appended once."),
      field("Append", condition))), button, h("small", { class: "hint" }, "Ctrl+Enter appends, too"));
}

const kinds = {
  close: { verb: "Close", says: "Its events stay, and nothing can be appended to it any more. That cannot be undone." },
  trim: { verb: "Trim", says: "The events before the offset are dropped. That cannot be undone." },
  delete: { verb: "Delete", says: "All its events are gone, and what follows it ends. That cannot be undone." },
};

// confirm asks whether the stream called name is to be closed, trimmed or deleted, and does it. It is done to the
// stream that the person has seen alone, and not to another one that has its name by then.
export function confirm(kind, name, { life, next, first, app, done }) {
  const { verb, says } = kinds[kind];
  const before = h("input", { inputmode: "numeric", autocomplete: "off", value: String(next), required: true });
  const wrong = h("p", { class: "notice bad", role: "alert", hidden: true });
  const go = h("button", { type: "button", class: "danger main" }, verb);
  const dialog = h("dialog", { class: "ask", "aria-labelledby": "ask-title", close: () => dialog.remove() },
    h("h2", { id: "ask-title" }, `${verb} the stream `, h("bdi", { class: "name" }, seen(name)), "?"),
    h("p", null, says),
    kind === "trim" ? field("First offset to keep", before, `It begins at ${number(first)}, and the next event gets ` +
      `${number(next)}.`) : "",
    wrong,
    h("p", { class: "do" },
      h("button", { type: "button", autofocus: true, click: () => dialog.close() }, "Cancel"), go));
  go.addEventListener("click", async () => {
    const mine = { "If-Match": `"*-${life}"` };
    go.disabled = true;
    try {
      if (kind === "close") {
        await ask(path(name), undefined, { method: "POST", headers: { ...mine, "Stream-Closed": "true" } });
      } else if (kind === "trim") {
        if (!/^\d+$/.test(before.value)) throw new Error("The first offset to keep is a number.");
        await ask(path(name, `/events?before=${before.value}`), undefined, { method: "DELETE", headers: mine });
      } else {
        await ask(path(name), undefined, { method: "DELETE", headers: mine });
      }
      dialog.close();
      app.tell(`${{ close: "Closed", trim: "Trimmed", delete: "Deleted" }[kind]}: ${plain(name)}`);
      done();
    } catch (error) {
      wrong.textContent = plain(error.message);
      wrong.hidden = false;
      go.disabled = false;
    }
  });
  document.body.append(dialog);
  dialog.showModal();
}
