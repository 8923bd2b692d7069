// Calls of the API for forms, dialogs that open and close, lists that filter and sort, and times in
// the viewer's own zone. Nothing here decides anything: the API does.
"use strict";

const permgate = {
  /** Asks the API; throws an error with what it says when that is no success. */
  async call(method, path, body, fields = {}) {
    const token = document.querySelector('meta[name="csrf"]');
    const headers = { ...fields, Accept: "application/json" };
    if (token) headers["X-CSRF-Token"] = token.content;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    const sent = body === undefined ? undefined : JSON.stringify(body);
    let answer;
    try {
      answer = await fetch(path, { method, headers, body: sent, credentials: "same-origin" });
    } catch {
      throw new Error("permgate did not answer: is it running, and is the network?");
    }
    const said = await answer.json().catch(() => ({}));
    if (answer.ok) return said;
    const error = new Error(said.error_description || `The answer was ${answer.status}`);
    error.said = said;
    throw error;
  },

  /** Tells it aloud and at the foot of the page; survives one reload when it is kept. */
  say(text, kept = false) {
    if (kept) sessionStorage.setItem("said", text);
    else document.getElementById("said").textContent = text;
  },

  /** What a form says, as the API's JSON. */
  body(form) {
    const body = {};
    for (const field of form.elements) {
      if (!field.name || field.name.endsWith("_") || field.disabled || (field.type === "radio" && !field.checked)) continue;
      const kind = field.dataset.as;
      if (field.type === "checkbox") {
        if (kind === "flag") body[field.name] = field.checked;
        else if (field.checked) (body[field.name] ??= []).push(field.value);
        else body[field.name] ??= [];
      } else if (kind === "list") {
        body[field.name] = field.value.split(/[\s,]+/).filter(Boolean);
      } else if (kind === "null") {
        body[field.name] = field.value === "" ? null : field.value;
      } else if (kind !== "optional" || field.value !== "") {
        body[field.name] = field.value;
      }
    }
    return body;
  },

  /** What a call came to, in a sentence. */
  told(form, said) {
    const cut = said.cut === undefined ? "" : `: ${said.cut} ${said.cut === 1 ? "request" : "requests"} in flight cut`;
    return `${form.dataset.told || "Done"}${cut}.`;
  },

  wrong(form, error) {
    const place = form.querySelector(".wrong");
    if (!place) return permgate.say(error.message);
    const errors = (error.said?.errors || []).map((e) => `\n${e.file}${e.line ? `:${e.line}` : ""}: ${e.message}`);
    place.textContent = error.message + errors.join("");
    place.hidden = false;
  },

  /** Scripts of single pages shape bodies and take answers of the forms that they name here. */
  shapes: {},
  takes: {
    check: (_, said) => {
      const errors = said.errors.map((e) => `${e.file}${e.line ? `:${e.line}:${e.column}` : ""}: ${e.message}`);
      show("checked", said.valid ? "It is valid." : errors.join("\n"), said.valid);
    },
    verify: (_, said) =>
      show("verified", said.valid ? `The chain is whole: ${said.events} events.`
        : `The chain is broken at event ${said.seq}: ${said.error}`, said.valid),
  },
};

function show(id, text, good) {
  const place = document.getElementById(id);
  place.textContent = text;
  place.classList.toggle("bad", !good);
  place.hidden = false;
}

async function submit(event) {
  const form = event.target.closest("form[data-call]");
  if (!form) return;
  event.preventDefault();
  const wrong = form.querySelector(".wrong");
  if (wrong) wrong.hidden = true;
  const [method, template] = form.dataset.call.split(" ");
  const path = template.replace(/\{(\w+)\}/g, (_, name) =>
    encodeURIComponent(form.elements[name]?.value ?? form.closest("dialog")?.dataset[name] ?? ""));
  const button = event.submitter;
  if (button) button.disabled = true;
  try {
    let body = permgate.body(form);
    for (const [, name] of template.matchAll(/\{(\w+)\}/g)) delete body[name];
    if (form.dataset.fragment) body[form.dataset.fragment] = location.hash.slice(1);
    const shape = permgate.shapes[form.id];
    if (shape) body = shape(form, body);
    const bare = method === "DELETE" || method === "GET" || (method !== "PATCH" && Object.keys(body).length === 0);
    const fields = form.dataset.revision ? { "If-Match": `"${form.dataset.revision}"` } : {};
    const said = await permgate.call(method, path, bare ? undefined : body, fields);
    const take = permgate.takes[form.id];
    if (take) return take(form, said);
    if (form.dataset.shows) {
      const place = form.querySelector("[data-shown]");
      place.value = said[form.dataset.shows];
      place.parentNode.hidden = false;
      return place.select();
    }
    const then = form.dataset.then || "reload";
    permgate.say(permgate.told(form, said), form.dataset.told !== undefined);
    if (then === "reload") location.reload();
    else location.assign(then);
  } catch (error) {
    permgate.wrong(form, error);
  } finally {
    if (button) button.disabled = false;
  }
}

function click(event) {
  const opener = event.target.closest("[data-opens]");
  if (opener) {
    const dialog = document.getElementById(opener.dataset.opens);
    Object.assign(dialog.dataset, opener.dataset);
    for (const place of dialog.querySelectorAll("[data-fill]")) {
      place.textContent = opener.dataset[place.dataset.fill] ?? "";
    }
    const wrong = dialog.querySelector(".wrong");
    if (wrong) wrong.hidden = true;
    dialog.showModal();
  }
  if (event.target.closest("[data-closes]")) event.target.closest("dialog").close();
  const header = event.target.closest("table[data-sortable] thead button");
  if (header) sort(header.closest("th"));
}

function sort(header) {
  const table = header.closest("table");
  const column = [...header.parentNode.children].indexOf(header);
  const down = header.getAttribute("aria-sort") === "ascending";
  for (const other of header.parentNode.children) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", down ? "descending" : "ascending");
  const key = (row) => row.children[column].dataset.value ?? row.children[column].textContent.trim();
  const order = new Intl.Collator(undefined, { numeric: true }).compare;
  const rows = [...table.tBodies[0].rows].sort((a, b) => (down ? order(key(b), key(a)) : order(key(a), key(b))));
  table.tBodies[0].append(...rows);
}

function filter(place) {
  const table = document.getElementById(place.dataset.filters);
  const words = (place.querySelector("input[type=search]")?.value ?? "").toLowerCase().split(/\s+/);
  const state = place.querySelector("select")?.value ?? "";
  let shown = 0;
  for (const row of table.tBodies[0].rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word)) || (state !== "" && row.dataset.state !== state);
    shown += row.hidden ? 0 : 1;
  }
  place.querySelector("[role=status]").textContent = `${shown} of ${table.tBodies[0].rows.length}`;
}

function local(time) {
  const at = new Date(time.dateTime);
  if (Number.isNaN(at.getTime())) return;
  time.textContent = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" }).format(at);
}

document.addEventListener("submit", submit);
document.addEventListener("click", click);
document.addEventListener("DOMContentLoaded", () => {
  for (const time of document.querySelectorAll("time")) local(time);
  for (const place of document.querySelectorAll("[data-filters]")) {
    place.addEventListener("input", () => filter(place));
    filter(place);
  }
  for (const header of document.querySelectorAll("table[data-sortable] thead th:not([data-fixed])")) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
  }
  const said = sessionStorage.getItem("said");
  sessionStorage.removeItem("said");
  if (said) permgate.say(said);
});
