// Forms: what they ask of the API, the question before, where an error belongs, and what follows.

/** A text with `{field}` replaced by what the form says or the answer holds. */
function fill(text, form, said = {}) {
  return text.replace(/\{(\w+)\}/g, (_, name) => form.elements[name]?.value || form.dataset[name] || said[name] || "");
}

function path(template, form) {
  return template.replace(/\{(\w+)\}/g, (_, name) =>
    encodeURIComponent(form.elements[name]?.value ?? form.closest("dialog")?.dataset[name] ?? ""));
}

/** What became of requests in flight, where that is worth a word. */
function cut(said) {
  return said.cut > 0 ? ` ${said.cut} ${said.cut === 1 ? "request in flight was" : "requests in flight were"} cut.` : "";
}

/** Which field an error of the API is about. */
const FIELDS = {
  invalid_name: "name", name_taken: "name", empty_scope: "scope", duplicate_service: "scope",
  service_not_readable: "scope", cannot_widen: "scope", expiry_in_past: "expiry", lifetime_too_long: "expiry",
  wrong_password: "current",
};

function clear(form) {
  for (const field of form.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
  for (const text of form.querySelectorAll(".field-error")) text.remove();
  const wrong = form.querySelector(".wrong");
  if (wrong) wrong.hidden = true;
}

/** Shows an error where it belongs: at its field, else in the form, else at the foot of the page. */
function wrong(form, error) {
  const code = error.said?.error;
  let name = error.field ?? FIELDS[code];
  if (!name && /^allow_ips/.test(error.message)) name = "allow_ips";
  if (name === "name" && !form.elements.name && form.elements.login) name = "login";
  const around = name && (form.querySelector(`[data-field=${name}]`) ?? form.elements[name]?.closest(".field"));
  const field = around?.querySelector("input:not([type=search]), select, textarea");
  if (field) {
    field.closest("details")?.setAttribute("open", "");
    const text = document.createElement("p");
    text.className = "field-error";
    text.id = `${name}-error`;
    text.textContent = sentence(error.message);
    field.setAttribute("aria-invalid", "true");
    field.setAttribute("aria-describedby", text.id);
    around.append(text);
    field.focus();
    return text.scrollIntoView({ block: "nearest" });
  }
  const place = form.querySelector(".wrong");
  if (!place) return permgate.toast(sentence(error.message), { bad: true });
  const errors = (error.said?.errors || []).map((e) => `\n${e.file}${e.line ? `:${e.line}` : ""}: ${e.message}`);
  place.textContent = sentence(error.message) + errors.join("");
  place.hidden = false;
  if (error.status === 412) stale(form, place);
}

function sentence(text) {
  return /[.!?]$/.test(text) ? text : `${text}.`;
}

/** Somebody else has changed the record: what differs, and both ways on. */
async function stale(form, place) {
  const url = path(form.dataset.call.split(" ")[1], form);
  const now = await permgate.call("GET", url).catch(() => null);
  if (!now) return;
  const show = (value) => (value === null || value === "" ? "nothing" : `“${value}”`);
  const lines = [...form.elements].filter((field) => field.name in now).flatMap((field) => {
    const label = field.labels?.[0]?.textContent.trim() ?? field.name;
    if (field.type === "checkbox") {
      const chosen = now[field.name].includes(field.value);
      return chosen === field.defaultChecked ? [] : [`\n${label}: ${chosen ? "added" : "taken away"}`];
    }
    const same = field.defaultValue === undefined || String(now[field.name] ?? "") === field.defaultValue;
    return same ? [] : [`\n${label}: ${show(field.defaultValue)} is now ${show(now[field.name])}`];
  });
  place.textContent = "Somebody else has changed this since you opened it." + (lines.join("") || "\nThe fields here are the same.");
  const actions = document.createElement("div");
  actions.className = "actions";
  const button = (label, act) => {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = label;
    made.onclick = act;
    actions.append(made);
  };
  button("Reload", () => permgate.visit(location.href));
  button("Save mine over it", () => {
    form.dataset.revision = now.revision;
    form.requestSubmit();
  });
  place.append(actions);
}

async function submit(event) {
  const form = event.target;
  if (form.matches("form[data-search]")) {
    event.preventDefault();
    return search(form);
  }
  if (!form.matches("form[data-call]")) return;
  event.preventDefault();
  clear(form);
  const { confirm, text, action, mild } = form.dataset;
  if (confirm && !(await permgate.confirm({ title: confirm, text: text ?? "", action, mild: mild !== undefined }))) return;
  const [method, template] = form.dataset.call.split(" ");
  const button = event.submitter ?? form.querySelector("button:not([type=button])");
  button?.setAttribute("aria-busy", "true");
  if (button) button.disabled = true;
  try {
    let body = permgate.body(form);
    for (const [, name] of template.matchAll(/\{(\w+)\}/g)) delete body[name];
    const shape = permgate.shapes[form.id];
    if (shape) body = await shape(form, body);
    const bare = method === "DELETE" || method === "GET" || (method !== "PATCH" && Object.keys(body).length === 0);
    const fields = form.dataset.revision ? { "If-Match": `"${form.dataset.revision}"` } : {};
    const said = await permgate.call(method, path(template, form), bare ? undefined : body, fields);
    await done(form, said);
  } catch (error) {
    wrong(form, error);
  } finally {
    button?.removeAttribute("aria-busy");
    if (button) button.disabled = false;
  }
}

async function done(form, said) {
  const take = permgate.takes[form.id];
  if (take) return take(form, said);
  const { shows, then = "reload", done: text, undo } = form.dataset;
  if (shows) {
    const place = document.getElementById(shows);
    place.hidden = false;
    const field = place.querySelector("input");
    field.value = said[field.dataset.shown];
    form.hidden = true;
    return field.select();
  }
  const message = text && { text: fill(text, form, said) + cut(said) };
  if (message && undo) {
    const [method, template] = undo.split(" ");
    const names = form.dataset.undoFields?.split(" ");
    const { undoInitial: initial, undoThen: then } = form.dataset;
    const body = initial !== undefined ? permgate.body(form, true)
      : names && Object.fromEntries(names.map((name) => [name, form.elements[name].value]));
    message.undo = { method, path: path(template, form), body, then: then && path(then, form) };
  }
  form.closest("dialog")?.close();
  if (then === "reload") {
    await permgate.visit(location.href);
    if (message) permgate.toast(message.text, message);
    return;
  }
  if (message) sessionStorage.setItem("toast", JSON.stringify(message));
  // An address that came with a link is taken as it is: a name in braces must not draw a password into it.
  location.assign(form.dataset.fills === undefined ? then : path(then, form));
}

document.addEventListener("submit", submit);
