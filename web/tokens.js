// Making, narrowing and rotating tokens: what the forms mean, and the one time that a text is shown.
"use strict";

/** The scope that the checkboxes and their selects say. */
function scope(form) {
  const chosen = [...form.querySelectorAll("[data-scope]:checked")];
  if (chosen.length === 0) throw new Error("Choose at least one service.");
  return chosen.map((box) => ({ service: box.value, access: box.parentNode.querySelector("select").value }));
}

/** The end of the day in the viewer's zone: the token works on that day still. */
function endOf(date) {
  if (!date) throw new Error("Choose the date on which the token expires.");
  const [year, month, day] = date.split("-").map(Number);
  return new Date(year, month - 1, day, 23, 59, 59).toISOString();
}

permgate.shapes.create = (form, { name, note, allow_ips, expiry, date }) => {
  const body = { name, note, scope: scope(form), allow_ips: allow_ips.split(/[\s,]+/).filter(Boolean) };
  if (expiry === "date") body.expires_at = endOf(date);
  else if (expiry) body.expires_in = expiry;
  return body;
};
permgate.takes.create = (form, said) => {
  const first = form.querySelector("[data-scope]:checked").dataset;
  document.getElementById("new-token").close();
  showOnce(said, first);
};
permgate.shapes.narrow = (form) => ({ scope: scope(form) });
permgate.takes.rotate = (_, said) => showOnce(said, {});

/** The text, once. */
function showOnce(said, { path = "", host = "" }) {
  const dialog = document.getElementById("made");
  const find = (name) => document.getElementById(`made-${name}`);
  const base = host ? `https://${host}` : dialog.dataset.gateway || "https://GATEWAY";
  let copied = false;

  find("text").value = said.token;
  find("curl").value = `curl -H 'Authorization: Bearer ${said.token}' '${base}${path}'`;
  if (said.cut) {
    find("cut").textContent = `${said.cut} requests in flight were cut.`;
    find("cut").hidden = false;
  }
  const note = (text) => {
    copied = true;
    find("ask").hidden = true;
    find("said").textContent = text;
  };
  const copy = async (field) => {
    field.focus();
    field.select();
    try {
      // Without TLS a browser has no clipboard for scripts, but copies a selection still.
      if (navigator.clipboard) await navigator.clipboard.writeText(field.value);
      else if (!document.execCommand("copy")) throw new Error();
      note("Copied.");
    } catch {
      find("said").textContent = "Not copied: press the keys that copy a selection.";
    }
  };
  const leave = () => {
    if (copied) return dialog.close();
    find("ask").hidden = false;
    find("stay").focus();
  };
  find("copy").onclick = () => copy(find("text"));
  find("copy-curl").onclick = () => copy(find("curl"));
  for (const name of ["text", "curl"]) find(name).oncopy = () => note("Copied.");
  find("close").onclick = leave;
  find("stay").onclick = () => {
    find("ask").hidden = true;
    find("text").select();
  };
  find("leave").onclick = () => dialog.close();
  // Escape asks as well, each time: a browser lets a second one through unheard otherwise.
  dialog.onkeydown = (event) => {
    if (event.key !== "Escape") return;
    event.preventDefault();
    leave();
  };
  dialog.oncancel = (event) => {
    event.preventDefault();
    leave();
  };
  dialog.onclose = () => {
    find("text").value = find("curl").value = "";
    location.reload();
  };
  dialog.showModal();
  find("text").focus();
  find("text").select();
}
