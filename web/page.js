// Calls the API, keeps lists up to date without loading the page again, and says what came of it.
// Nothing here decides anything: the API does.
"use strict";

const permgate = {
  /** The fields of requests that nobody has asked for: they do not keep the session from becoming idle. */
  unattended: { "X-Permgate-Unattended": "1" },

  /** Asks the API. Throws an error with its answer when that is no success. A session that has ended is renewed. */
  async call(method, path, body, fields = {}, again = true) {
    const meta = document.querySelector('meta[name="csrf"]');
    const headers = { ...fields, Accept: "application/json" };
    if (meta) headers["X-CSRF-Token"] = meta.content;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    const sent = body === undefined ? undefined : JSON.stringify(body);
    let answer;
    try {
      answer = await fetch(path, { method, headers, body: sent, credentials: "same-origin" });
    } catch {
      throw new Error("permgate did not answer. Check that it is running and that you are online, then try again.");
    }
    const said = await answer.json().catch(() => ({}));
    if (answer.ok) return said;
    if (again && meta && (answer.status === 401 || said.error === "csrf") && (await permgate.renew(answer.status))) {
      return permgate.call(method, path, body, fields, false);
    }
    const error = new Error(said.error_description || `The request failed with status ${answer.status}.`);
    error.said = said;
    error.status = answer.status;
    throw error;
  },

  /** Signs in again inside the page, so that nothing that was typed is lost. Resolves to whether it worked. */
  async renew(status) {
    const meta = document.querySelector('meta[name="csrf"]');
    // Another tab may have signed in again already.
    const present = await fetch("/v1/session", { headers: { Accept: "application/json" } }).catch(() => null);
    const session = present?.ok ? await present.json() : null;
    const dialog = document.getElementById("renew");
    if (session && session.user === dialog?.dataset.login) {
      meta.content = session.csrf;
      return true;
    }
    if (!dialog || status !== 401) return false;
    const form = dialog.querySelector("form");
    const wrong = form.querySelector(".wrong");
    wrong.hidden = true;
    dialog.showModal();
    return new Promise((resolve) => {
      dialog.onclose = () => {
        form.elements.password.value = "";
        resolve(dialog.returnValue === "renewed");
        dialog.returnValue = "";
      };
      form.onsubmit = async (event) => {
        event.preventDefault();
        const { login, password } = form.elements;
        try {
          const body = { login: login.value, password: password.value };
          meta.content = (await permgate.call("POST", "/v1/session", body, {}, false)).csrf;
          dialog.close("renewed");
        } catch (error) {
          wrong.textContent = sentence(error.message);
          wrong.hidden = false;
          password.select();
        }
      };
    });
  },

  /** A message at the foot of the page, for six seconds or until it is closed. `undo` is a call that takes it back. */
  toast(text, { undo, bad } = {}) {
    const place = document.getElementById("toasts");
    const toast = document.createElement("div");
    toast.className = bad ? "toast bad" : "toast";
    const said = document.createElement("p");
    said.textContent = text;
    toast.append(said);
    const button = (label, act) => {
      const made = document.createElement("button");
      made.type = "button";
      made.textContent = label;
      made.onclick = act;
      toast.append(made);
      return made;
    };
    if (undo) {
      button("Undo", async () => {
        toast.remove();
        try {
          await permgate.call(undo.method, undo.path, undo.body);
          if (undo.then) history.replaceState(null, "", undo.then);
          await permgate.visit(location.href);
          permgate.toast("Undone.");
        } catch (error) {
          permgate.toast(error.message, { bad: true });
        }
      });
    }
    button("×", () => toast.remove()).setAttribute("aria-label", "Close this message");
    // A modal dialog covers everything outside of it but popovers that open later.
    if (place.showPopover) {
      if (place.matches(":popover-open")) place.hidePopover();
      place.showPopover();
    }
    place.append(toast);
    let left = setTimeout(() => toast.remove(), 6000);
    // Only if somebody moves there: where the pointer rests already, the message would stay and cover the page.
    toast.onpointermove = toast.onfocusin = () => clearTimeout(left);
    toast.onpointerleave = toast.onfocusout = () => (left = setTimeout(() => toast.remove(), 3000));
  },

  /** Shows another state of a page in place: the content is replaced, the frame stays. */
  async visit(url, { push = false, focus = true } = {}) {
    const turn = (permgate.turn = (permgate.turn ?? 0) + 1);
    const answer = await fetch(url, { headers: { Accept: "text/html" }, credentials: "same-origin" }).catch(() => null);
    // Another state is on its way already.
    if (turn !== permgate.turn) return;
    if (!answer) return location.assign(url);
    if (answer.redirected && new URL(answer.url).pathname === "/sign-in") return location.assign(answer.url);
    const next = new DOMParser().parseFromString(await answer.text(), "text/html");
    const [now, then] = [document.getElementById("content"), next.getElementById("content")];
    if (!then) return location.assign(url);
    if (push) history.pushState(null, "", url);
    const held = now.contains(document.activeElement) ? document.activeElement : null;
    const id = held?.id;
    const typed = !focus && held?.matches("form[data-search] input");
    const range = held?.type === "search" ? [held.selectionStart, held.selectionEnd] : null;
    const marks = new Set([...now.querySelectorAll("details[open][id]")].map((one) => one.id));
    now.replaceChildren(...then.childNodes);
    document.title = next.title;
    enhance(now);
    for (const mark of marks) if (document.getElementById(mark)) document.getElementById(mark).open = true;
    const same = id && document.getElementById(id);
    if (same && typed) {
      // Somebody may be typing into it: the field stays, with what came meanwhile.
      same.replaceWith(held);
      held.focus({ preventScroll: true });
      if (range) held.setSelectionRange(...range);
    } else if (same) {
      same.focus({ preventScroll: true });
    } else if (focus && held) {
      const heading = now.querySelector("h1");
      heading.tabIndex = -1;
      heading.focus({ preventScroll: true });
    }
  },

  /** What a form says, or said when it was opened, as the API's JSON. Fields whose name ends in `_` are for the page alone. */
  body(form, initial = false) {
    const body = {};
    for (const field of form.elements) {
      if (!field.name || field.name.endsWith("_") || field.disabled || (field.type === "radio" && !field.checked)) continue;
      const kind = field.dataset.as;
      if (field.type === "checkbox") {
        body[field.name] ??= [];
        if (initial ? field.defaultChecked : field.checked) body[field.name].push(field.value);
        continue;
      }
      const option = initial && field.options && ([...field.options].find((one) => one.defaultSelected) ?? field.options[0]);
      const value = option ? option.value : initial ? field.defaultValue : field.value;
      if (kind === "list") {
        body[field.name] = value.split(/[\s,]+/).filter(Boolean);
      } else if (kind === "null") {
        body[field.name] = value === "" ? null : value;
      } else if (kind !== "optional" || value !== "") {
        body[field.name] = value;
      }
    }
    return body;
  },

  /** Asks before something that hurts. Resolves to whether it is wanted. */
  confirm({ title, text, action, mild }) {
    const dialog = document.getElementById("confirm");
    dialog.querySelector("h2").textContent = title;
    dialog.querySelector(".dialog-body p").textContent = text;
    const yes = dialog.querySelector("[value=yes]");
    yes.textContent = action;
    yes.className = mild ? "primary" : "danger";
    dialog.returnValue = "";
    dialog.showModal();
    dialog.querySelector("[value=no]").focus();
    return new Promise((resolve) => (dialog.onclose = () => resolve(dialog.returnValue === "yes")));
  },

  /** Scripts of single pages shape bodies and take answers of the forms that they name here. */
  shapes: {},
  takes: {},
};

function click(event) {
  const opener = event.target.closest("[data-opens]");
  if (opener) {
    // What opens the dialog stays with the button: a click in the dialog must not open it again.
    const { opens, ...about } = { ...opener.closest("tr")?.dataset, ...opener.dataset };
    const dialog = document.getElementById(opens);
    Object.assign(dialog.dataset, about);
    for (const place of dialog.querySelectorAll("[data-fill]")) place.textContent = about[place.dataset.fill] ?? "";
    for (const place of dialog.querySelectorAll("[data-cell]")) place.textContent = opener.closest("tr").querySelector(place.dataset.cell).textContent;
    for (const form of dialog.querySelectorAll("form")) clear(form);
    dialog.showModal();
    dialog.dispatchEvent(new Event("opened"));
  }
  if (event.target.closest("[data-closes]")) event.target.closest("dialog").close();
  const copies = event.target.closest("[data-copies]");
  if (copies) copy(document.getElementById(copies.dataset.copies), copies);
  const link = event.target.closest("a[data-soft]");
  if (link && !event.ctrlKey && !event.metaKey && !event.shiftKey && event.button === 0) {
    event.preventDefault();
    permgate.visit(link.href, { push: true });
  }
  for (const add of document.querySelectorAll("details.add[open]")) if (!add.contains(event.target)) add.open = false;
}

/** Copies a field's text. Without TLS a browser has no clipboard for scripts, but copies a selection still. */
async function copy(field, button) {
  field.focus();
  field.select();
  let copied = true;
  try {
    if (navigator.clipboard) await navigator.clipboard.writeText(field.value);
    else copied = document.execCommand("copy");
  } catch {
    copied = false;
  }
  const before = (button.dataset.label ??= button.textContent);
  button.textContent = copied ? "Copied ✓" : "Press Ctrl+C";
  setTimeout(() => (button.textContent = before), 2500);
  field.dispatchEvent(new CustomEvent("copied", { detail: copied, bubbles: true }));
}

/** The filters of a list are in its address. */
function search(form) {
  const query = new URLSearchParams(new FormData(form));
  for (const [name, value] of [...query]) if (value === "") query.delete(name);
  const url = `${form.getAttribute("action")}${query.size ? `?${query}` : ""}`;
  history.replaceState(null, "", url);
  return permgate.visit(url, { focus: false });
}

/** Rows of a list that is here as a whole, by what stands in them. */
function filter(place) {
  const rows = document.getElementById(place.dataset.filters).querySelectorAll("[data-row]");
  const words = place.querySelector("input").value.toLowerCase().split(/\s+/);
  let shown = 0;
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
    shown += row.hidden ? 0 : 1;
  }
  const status = place.querySelector("[role=status]");
  if (status) status.textContent = shown === rows.length ? "" : `${shown} of ${rows.length}`;
}

/** Picked rows of a list, and the bar that does something with all of them. */
function picked() {
  const boxes = [...document.querySelectorAll("[data-pick]:checked")];
  const bar = document.getElementById("bulk");
  if (!bar) return boxes;
  bar.hidden = boxes.length === 0;
  bar.querySelector("[data-count]").textContent = `${boxes.length} selected`;
  return boxes;
}

async function revokePicked() {
  const boxes = picked();
  const name = (box) => box.ariaLabel.replace(/^Select /, "");
  const names = boxes.slice(0, 5).map(name).join(", ");
  const many = boxes.length === 1 ? "1 token" : `${boxes.length} tokens`;
  const text = `${names}${boxes.length > 5 ? ` and ${boxes.length - 5} more` : ""}. Requests with them are refused from then on, and those in flight are cut. This cannot be undone.`;
  if (!(await permgate.confirm({ title: `Revoke ${many}?`, text, action: `Revoke ${many}` }))) return;
  const sum = { cut: 0 };
  let failed = null;
  for (const box of boxes) {
    try {
      sum.cut += (await permgate.call("DELETE", `/v1/tokens/${box.closest("tr").dataset.id}`)).cut;
    } catch (error) {
      failed ??= `“${name(box)}” was not revoked: ${error.message}`;
    }
  }
  await permgate.visit(location.href);
  permgate.toast(failed ? sentence(failed) : `${many} revoked.${cut(sum)}`, { bad: failed !== null });
}

/** A tooltip is made when somebody looks for it: the exact time in the viewer's zone, or a name that may be cut short. */
function hover({ target }) {
  if (target.title) return;
  if (target.matches("time")) {
    const at = new Date(target.dateTime);
    if (Number.isNaN(at.getTime())) return;
    target.title = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" }).format(at);
  } else if (target.matches("#tokens .named > :first-child")) {
    target.title = `${target.textContent} · ${target.pathname.split("/").pop()}`;
  } else if (target.matches(".clip, .clip > *")) {
    target.title = target.textContent;
  }
}

/** Content that has just come, first or later. */
function enhance(root) {
  for (const button of root.querySelectorAll("[data-ready]")) button.disabled = false;
  for (const place of root.querySelectorAll("[data-filters]")) {
    place.addEventListener("input", () => filter(place));
  }
  for (const form of root.querySelectorAll("form[data-search]")) {
    let wait;
    form.addEventListener("input", ({ target }) => {
      clearTimeout(wait);
      wait = setTimeout(() => search(target.form), 250);
    });
  }
  for (const ready of Object.values(permgate.ready)) ready(root);
  picked();
}

/** What scripts of single pages do with content that has just come. */
permgate.ready = {};

/** A part of the page that is read again every few seconds, while somebody looks and does nothing with it. */
async function beat() {
  const live = document.querySelector("[data-refresh]");
  if (!live || document.hidden || document.querySelector("dialog[open], details.add[open], [data-pick]:checked")) return;
  if (Date.now() - (beat.last ?? beat.began) < Number(live.dataset.refresh) * 1000 || beat.busy) return;
  beat.busy = true;
  try {
    const answer = await fetch(location.href, { headers: { ...permgate.unattended, Accept: "text/html" } });
    if (!answer.ok || answer.redirected) return;
    const next = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById(live.id);
    if (!next || live.contains(document.activeElement) || !live.isConnected) return;
    live.replaceChildren(...next.childNodes);
    enhance(live);
    for (const place of document.querySelectorAll("[data-filters]")) filter(place);
  } catch {
    // The next beat tries again.
  } finally {
    beat.busy = false;
    beat.last = Date.now();
  }
}
beat.began = Date.now();

document.addEventListener("click", click);
document.addEventListener("pointerover", hover);
document.addEventListener("change", (event) => {
  const { target } = event;
  if (target.matches("[data-pick-all]")) {
    for (const box of document.querySelectorAll("[data-pick]")) box.checked = target.checked;
  }
  if (target.matches("[data-pick], [data-pick-all]")) picked();
  if (target.matches("[data-sends]")) target.form.requestSubmit();
});
document.addEventListener("keydown", (event) => {
  const box = document.querySelector("main input[type=search]");
  const typing = event.target.closest("input, textarea, select, dialog");
  if (event.key === "/" && box && !typing) {
    event.preventDefault();
    box.focus();
  }
  if (event.key === "Escape") {
    const add = event.target.closest("details.add[open]");
    if (add) {
      add.open = false;
      add.querySelector("summary").focus();
    }
  }
});
window.addEventListener("popstate", () => permgate.visit(location.href));
document.addEventListener("DOMContentLoaded", () => {
  enhance(document);
  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-revoke-picked]")) revokePicked();
  });
  const kept = sessionStorage.getItem("toast");
  sessionStorage.removeItem("toast");
  if (kept) {
    const message = JSON.parse(kept);
    permgate.toast(message.text, message);
  }
  setInterval(beat, 1000);
});
