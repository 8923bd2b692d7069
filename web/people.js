// Invitations, the demo's links, and the checks of configuration and audit log.

function show(id, text, good) {
  const place = document.getElementById(id);
  place.textContent = text;
  place.className = good ? "note good" : "note bad";
  place.hidden = false;
}

permgate.takes.check = (_, said) => {
  const errors = said.errors?.map((e) => `${e.file}${e.line ? `:${e.line}:${e.column}` : ""}: ${e.message}`) ?? [];
  show("checked", said.valid ? "This configuration is valid." : errors.join("\n"), said.valid);
};
permgate.takes.verify = (_, said) =>
  show("verified", said.valid ? `The chain is complete: ${said.events} events, none changed or missing.`
    : `The chain breaks at event ${said.seq}: ${said.error}.`, said.valid);

/** An invitation is looked at before anybody types: whom it is for, and whether it is still valid. */
permgate.ready.invitation = async (root) => {
  const form = root.querySelector("#invitation");
  if (!form) return;
  const invitation = location.hash.slice(1);
  permgate.shapes.invitation = (_, { password }) => ({ invitation, password });
  permgate.takes.invitation = async (_, said) => {
    const body = { login: said.user, password: form.elements.password.value };
    await permgate.call("POST", "/v1/session", body);
    location.assign("/profile/authentication");
  };
  try {
    const said = await permgate.call("POST", "/v1/invitation/check", { invitation });
    document.getElementById("greeting").textContent = `Welcome, ${said.name}`;
    form.elements.login_.value = said.user;
    form.hidden = false;
    form.elements.password.focus();
  } catch (error) {
    document.getElementById("invalid").textContent = error.message;
    document.getElementById("invalid").hidden = false;
  }
};

/** A link of the demo signs in by itself. Other servers never offer this: the page there has no `data-demo`. */
permgate.ready.demo = (root) => {
  const form = root.querySelector("form[data-demo]");
  const [login, password] = location.hash.slice(1).split(":");
  if (!form || !password) return;
  history.replaceState(null, "", location.pathname + location.search);
  form.elements.login.value = login;
  form.elements.password.value = password;
  form.requestSubmit();
};

/** A role is made from another one's permissions, or shown with its own to be changed. */
permgate.ready.roles = (root) => {
  const fill = ({ currentTarget: dialog }) => {
    const { key = "", name = "", revision = "", permissions = "" } = dialog.dataset;
    const chosen = permissions.split(" ");
    const form = dialog.querySelector("form");
    for (const box of form.querySelectorAll("[type=checkbox]")) box.checked = box.defaultChecked = chosen.includes(box.value);
    for (const word of ["key", "name", "revision", "permissions", "held"]) delete dialog.dataset[word];
    if (form.id !== "role") return;
    form.elements.key_.value = key;
    form.elements.name.value = form.elements.name.defaultValue = name;
    form.dataset.revision = revision;
  };
  for (const id of ["new-role", "edit-role"]) root.querySelector(`#${id}`)?.addEventListener("opened", fill);
};
