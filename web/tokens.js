// Creating, reducing and rotating tokens: what the forms mean, and the one time that a token's text is shown.

(() => {
  const DAY = 86_400_000;
  const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });

  /** An error that belongs to a field. */
  function refused(field, message) {
    return Object.assign(new Error(message), { field });
  }

  function chosen(form) {
    return [...form.querySelectorAll("[data-scope]:checked")];
  }

  function access(box) {
    return box.closest(".service").querySelector("select").value;
  }

  function scope(form) {
    const boxes = chosen(form);
    if (boxes.length === 0) throw refused("scope", "Choose at least one service.");
    return boxes.map((box) => ({ service: box.value, access: access(box) }));
  }

  /** A date of the viewer's calendar: the token still works on its last day, and already on its first. */
  function instant(date, end) {
    const [year, month, number] = date.split("-").map(Number);
    return end ? new Date(year, month - 1, number, 23, 59, 59) : new Date(year, month - 1, number);
  }

  /** When the token expires by what the form says; `null` is never. */
  function expiry(form) {
    const { expiry, date } = form.elements;
    if (expiry.value === "never") return null;
    if (expiry.value !== "date") return new Date(Date.now() + Number(expiry.value) * DAY);
    if (!date.value) throw refused("date", "Choose the date on which the token expires.");
    return instant(date.value, true);
  }

  permgate.shapes.create = (form, { name, note, allow_ips }) => {
    if (!name.trim()) throw refused("name", "Give the token a name.");
    const body = { name, note, scope: scope(form), allow_ips };
    const end = expiry(form);
    if (end) body.expires_at = end.toISOString();
    const begin = form.elements.begins_.value;
    if (begin && instant(begin, false) > new Date()) body.not_before = instant(begin, false).toISOString();
    return body;
  };
  permgate.takes.create = (form, said) => {
    const { path = "", host = "" } = chosen(form)[0].dataset;
    form.closest("dialog").close();
    form.reset();
    showOnce(said, { path, host });
  };
  permgate.shapes.narrow = (form) => ({ scope: scope(form) });
  permgate.shapes.shorten = (form, { date }) => {
    if (!date) throw refused("date", "Choose a date.");
    return { expires_at: instant(date, true).toISOString() };
  };
  permgate.takes.rotate = (form, said) => {
    form.closest("dialog")?.close();
    showOnce(said, { ...form.dataset, verb: "rotated" });
  };

  /** One line that says what the token would be. */
  function summarize(form) {
    const line = form.querySelector(".summary");
    const boxes = chosen(form);
    const list = (kind) => boxes.filter((box) => access(box) === kind).map((box) => box.dataset.title);
    const names = (all) => (all.length > 2 ? `${all.length} services` : all.join(" and "));
    const parts = [];
    if (list("read").length) parts.push(`Reads ${names(list("read"))}`);
    if (list("full").length) parts.push(`${parts.length ? "r" : "R"}eads and changes ${names(list("full"))}`);
    let until = "";
    const never = form.elements.expiry.value === "never";
    try {
      const end = expiry(form);
      until = end ? ` until ${day.format(end)}` : " until it is revoked";
      form.querySelector("#expiry-date").textContent = end ? `Expires on ${day.format(end)}.` : "";
    } catch {
      form.querySelector("#expiry-date").textContent = "";
    }
    line.textContent = parts.length ? `${parts.join(", ")}${until}.` : "Choose the services that this token may reach.";
    form.querySelector("#never-warning").hidden = !never;
    form.querySelector("#on-date").hidden = form.elements.expiry.value !== "date";
  }

  permgate.ready.tokens = (root) => {
    const form = root.querySelector("#create");
    if (form) {
      // Software that fills in forms may report a choice by `change` alone.
      for (const kind of ["input", "change"]) form.addEventListener(kind, () => summarize(form));
      form.addEventListener("reset", () => setTimeout(() => summarize(form)));
      summarize(form);
      const find = form.querySelector("#find-service");
      find?.addEventListener("input", () => {
        const words = find.value.toLowerCase().split(/\s+/);
        const rows = [...form.querySelectorAll(".service")];
        for (const row of rows) {
          const text = row.textContent.toLowerCase();
          row.hidden = !words.every((word) => text.includes(word)) && !row.querySelector("input").checked;
        }
        form.querySelector("#none-found").hidden = rows.some((row) => !row.hidden);
      });
      find?.addEventListener("keydown", (event) => {
        if (event.key === "Enter") event.preventDefault();
      });
      if (location.hash.startsWith("#new")) {
        const wanted = decodeURIComponent(location.hash.slice(5));
        history.replaceState(null, "", location.pathname + location.search);
        const box = [...form.querySelectorAll("[data-scope]")].find((one) => one.value === wanted);
        if (box) box.checked = true;
        summarize(form);
        form.closest("dialog").showModal();
      }
    }
    for (const box of root.querySelectorAll("#narrow [data-scope]")) {
      box.addEventListener("change", () => (box.closest(".service").querySelector("select").disabled = !box.checked));
    }
  };

  /** The text, once. */
  function showOnce(said, { path = "", host = "", verb = "created" }) {
    const dialog = document.getElementById("made");
    const find = (name) => document.getElementById(`made-${name}`);
    const base = host ? `https://${host}` : dialog.dataset.gateway || "https://GATEWAY";
    let copied = false;
    find("name").textContent = said.name;
    find("text").value = said.token;
    find("curl").value = `curl -H "Authorization: Bearer ${said.token}" ${base}${path || "/"}`;
    find("ask").hidden = true;
    const waiting = find("waiting");
    waiting.className = "waiting";
    const status = find("waiting-text");
    status.textContent = "Waiting for its first use …";
    const watch = setInterval(async () => {
      // If the session has ended, nobody has to sign in again for this alone.
      const watched = permgate.call("GET", `/v1/tokens/${said.id}`, undefined, permgate.unattended, false);
      const now = await watched.catch(() => null);
      if (!now?.last_used_at) return;
      clearInterval(watch);
      waiting.className = "waiting seen";
      status.textContent = `First request seen ✓ ${now.last_used_service ?? "permgate"}, from ${now.last_used_ip}`;
    }, 1500);
    const leave = () => {
      if (copied) return dialog.close();
      find("ask").hidden = false;
      find("ask").scrollIntoView({ block: "nearest" });
      find("stay").focus();
    };
    dialog.addEventListener("copied", (event) => (copied ||= event.detail));
    for (const name of ["text", "curl"]) find(name).oncopy = () => (copied = true);
    find("close").onclick = leave;
    find("stay").onclick = () => {
      find("ask").hidden = true;
      find("text").focus();
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
      clearInterval(watch);
      find("text").value = find("curl").value = "";
      permgate.visit(location.href);
      permgate.toast(`Token “${said.name}” ${verb}.${said.cut > 0 ? ` ${said.cut} requests in flight were cut.` : ""}`);
    };
    dialog.showModal();
    find("text").focus();
    find("text").select();
  }
})();
