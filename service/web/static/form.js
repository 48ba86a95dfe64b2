// The form of a new job: what the API says of models, algorithms and plans, as it says it. Everything is put in as text.
(() => {
  "use strict";
  const csrf = document.querySelector("meta[name=csrf]").content;
  const at = (id) => document.getElementById(id);
  const WAIT = 200; // ms after the last change until the plan is asked for
  const algorithms = { searcher: [], pruner: [] };
  const key = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

  const element = (tag, attributes = {}, ...children) => {
    const made = Object.assign(document.createElement(tag), attributes);
    made.append(...children);
    return made;
  };
  const short = (value) => {
    for (const [unit, prefix] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) if (value >= unit) return `${+(value / unit).toPrecision(4)}${prefix}`;
    return `${+value.toPrecision(4)}`;
  };
  const ask = async (path, options = {}) => {
    const answer = await fetch(path, { ...options, headers: { Accept: "application/json", "X-CSRF-Token": csrf, ...options.headers } });
    const found = await answer.json();
    if (!answer.ok) throw Object.assign(new Error(found.detail ?? answer.statusText), { field: found.field });
    return found;
  };

  // Uploads -----------------------------------------------------------------------------------------------------------------
  const send = (kind) => {
    const file = at(`${kind}-file`).files[0];
    if (!file) return;
    const told = at(`${kind}-told`), bar = at(`${kind}-sent`);
    const request = new XMLHttpRequest(); // fetch does not say how far it is
    const name = file.name.replace(/\.(pt2|npz|parquet|tar(\.gz)?)$/i, "").replace(/[^\P{C}]/gu, "").slice(0, 200) || kind;
    request.open("POST", `/${kind}s?name=${encodeURIComponent(name)}`);
    request.setRequestHeader("X-CSRF-Token", csrf);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.responseType = "json";
    request.upload.onprogress = (event) => {
      bar.value = event.loaded / event.total;
      told.textContent = event.loaded < event.total ? `${short(event.loaded)} of ${short(event.total)} bytes` : "Looking into it…";
    };
    request.onload = () => {
      bar.hidden = true;
      const found = request.response;
      told.classList.toggle("bad", request.status >= 300);
      if (request.status >= 300) { told.textContent = found?.detail ?? "It was not taken."; return; }
      told.textContent = `${found.name} is here.`;
      const select = at(kind);
      if (![...select.options].some((option) => option.value === found.id)) select.append(element("option", { value: found.id, textContent: found.name }));
      select.value = found.id;
      changed();
      if (kind === "model") describe();
    };
    request.onerror = () => { bar.hidden = true; told.classList.add("bad"); told.textContent = "The connection broke; choose the file again."; };
    bar.hidden = false;
    told.classList.remove("bad");
    told.textContent = "Sending…";
    request.send(file);
  };

  // What can be pruned -------------------------------------------------------------------------------------------------------
  const list = (groups) => {
    at("groups").replaceChildren(...groups.map((group) => {
      const reason = group.kept_because ?? group.frozen_reason;
      return element("tr", {},
        element("th", { scope: "row", textContent: group.name }),
        element("td", { textContent: group.width }),
        element("td", { textContent: group.layers.join(", ") }),
        element("td", { className: reason ? "soft" : "good", textContent: reason ? `no: ${reason}` : group.least === undefined ? "yes" : `down to ${group.least}` }));
    }));
  };
  const describe = async () => {
    at("found").hidden = !at("model").value;
    if (!at("model").value) return;
    const model = await ask(`/models/${at("model").value}`);
    at("found-figures").textContent = `${short(model.macs)} MACs and ${short(model.params)} parameters; ${model.groups.filter((group) => group.frozen_reason === null).length} of ${model.groups.length} groups of channels can lose some. Channels of a group go together.`;
    list(model.groups);
  };

  // Parameters from JSON Schema ----------------------------------------------------------------------------------------------
  const kind = (schema) => {
    const either = (schema.anyOf ?? [schema]).filter((each) => each.type !== "null");
    return either.length === 1 ? { ...schema, ...either[0] } : schema;
  };
  const field = (part, name, given) => {
    const schema = kind(given), id = `${part}.${name}`, hint = `${id}-hint`;
    const shown = given.default === undefined || given.default === null ? "" : typeof given.default === "string" ? given.default : JSON.stringify(given.default);
    let input;
    if (schema.enum || schema.type === "boolean") {
      const values = schema.enum ?? [true, false];
      input = element("select", {}, element("option", { value: "", textContent: shown === "" ? "as it comes" : `${shown} (as it comes)` }),
        ...values.map((value) => element("option", { value: JSON.stringify(value), textContent: String(value) })));
    } else if (schema.type === "integer" || schema.type === "number") {
      input = element("input", { type: "number", step: schema.type === "integer" ? "1" : "any", placeholder: shown });
      for (const [bound, attribute] of [["minimum", "min"], ["maximum", "max"]]) if (schema[bound] !== undefined) input[attribute] = schema[bound];
    } else {
      input = element("input", { placeholder: shown });
    }
    Object.assign(input, { id });
    input.dataset.name = name;
    input.dataset.type = schema.enum || schema.type === "boolean" ? "json" : schema.type ?? "json";
    input.setAttribute("aria-describedby", hint);
    return element("div", {}, element("label", { htmlFor: id, textContent: name.replaceAll("_", " ") }), input,
      element("p", { className: "hint", id: hint, textContent: given.description ?? "" }));
  };
  const parameters = (part) => {
    const chosen = algorithms[part].find((each) => each.name === at(part).value);
    const known = Object.entries(chosen?.params.properties ?? {});
    at(`${part}-hint`).textContent = chosen ? `${chosen.description} ${chosen.reference}` : "";
    at(`${part}-params`).replaceChildren(...known.map(([name, schema]) => field(part, name, schema)));
    at(`${part}-details`).hidden = known.length === 0;
  };
  const values = (part) => Object.fromEntries([...at(`${part}-params`).querySelectorAll("[data-name]")]
    .filter((input) => input.value !== "")
    .map((input) => [input.dataset.name, read(input)]));
  const read = (input) => {
    if (input.dataset.type === "string") return input.value;
    if (["integer", "number"].includes(input.dataset.type)) return Number(input.value);
    try { return JSON.parse(input.value); } catch { return input.value; }
  };

  // The plan -----------------------------------------------------------------------------------------------------------------
  const shares = () => [at("ratio").value, ...at("further").value.split(/[\s,;%]+/).filter((share) => share !== "")];
  const portion = (share) => (Number.isNaN(Number(share)) ? share : +(Number(share) / 100).toPrecision(12)); // what is none is refused by name
  const budgets = () => shares().map((share) => ({ metric: at("metric").value, ratio: portion(share) }));
  const recipe = () => (at("images").value ? { recipe: { augment: at("images").value.split(","), features: 1 } } : {});
  const stated = () => ({
    ...(at("name").value.trim() ? { name: at("name").value.trim() } : {}),
    model: at("model").value,
    dataset: at("dataset").value,
    task: { type: at("task").value },
    budget: budgets().length > 1 ? budgets() : budgets()[0],
    searcher: { name: at("searcher").value, params: values("searcher") },
    pruner: { name: at("pruner").value, params: values("pruner") },
    limits: { max_trials: Number(at("max_trials").value), max_concurrent: Number(at("max_concurrent").value) },
    recovery: { final_epochs: Number(at("final_epochs").value), ...recipe() },
    seed: Number(at("seed").value),
  });
  const post = (path, headers = {}) => ask(path, { method: "POST", body: JSON.stringify(stated()), headers: { "Content-Type": "application/json", ...headers } });
  const refuse = (error) => {
    at("refused").hidden = !error;
    at("refused").textContent = error?.message ?? "";
    for (const wrong of document.querySelectorAll("[aria-invalid]")) wrong.removeAttribute("aria-invalid");
    const field = error?.field?.replace(".params", "").replace(/^budget\.[1-9].*/, "further").replace("recipe.augment", "images");
    const input = field && (at(field) ?? at(field.split(".").at(-1)) ?? at(field.split(".")[0]));
    input?.setAttribute("aria-invalid", "true");
  };
  const unit = () => at("metric").selectedOptions[0].textContent;
  const reach = (plan) => {
    const known = plan?.dense && plan.metric !== "sparsity";
    at("reachable").textContent = known ? `These layers allow ${(100 * plan.least / plan.dense).toFixed(1)} % and more: ${short(plan.least)} of ${short(plan.dense)}.` : "";
  };
  let asked = 0, due;
  const plan = async () => {
    const mine = ++asked;
    if (!at("model").value || !at("dataset").value || !at("searcher").value || !at("pruner").value) return;
    try {
      const found = await post("/jobs?dry_run=true");
      if (mine !== asked) return; // a newer one is under way
      refuse(null);
      reach(found);
      list(found.groups);
      const cost = found.limit === null ? `At most ${at("ratio").value} % of the dense network's milliseconds, which the job times first.` : `At most ${short(found.limit)} of ${short(found.dense)}: ${unit()}.`;
      const further = shares().length > 1 ? ` ${shares().length} networks of different sizes.` : "";
      at("plan").textContent = `${cost}${further} ${found.planned_trials.toLocaleString("en")} trials at most, reported by ${found.task.metric}.`;
    } catch (error) {
      if (mine !== asked) return;
      at("plan").textContent = "Not as it stands:";
      refuse(error);
    }
  };
  const changed = () => { clearTimeout(due); due = setTimeout(plan, WAIT); };
  const slide = () => {
    at("ratio-shown").textContent = `${at("ratio").value} %`;
    at("ratio-title").textContent = at("metric").value === "sparsity" ? "This share of weights becomes zero" : "At most this share of the dense network's";
  };

  for (const upload of ["model", "dataset"]) at(`${upload}-file`).addEventListener("change", () => send(upload));
  at("model").addEventListener("change", describe);
  for (const part of ["searcher", "pruner"]) at(part).addEventListener("change", () => parameters(part));
  for (const event of ["input", "change"]) at("job").addEventListener(event, () => { slide(); changed(); });
  at("job").addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!at("model").value || !at("dataset").value) {
      refuse({ message: "Choose a network and data first.", field: at("model").value ? "dataset" : "model" });
      at(at("model").value ? "dataset" : "model").focus();
      return;
    }
    at("start").disabled = true;
    try {
      const made = await post("/jobs", { "Idempotency-Key": key });
      location.assign(`/ui/jobs/${made.id}`);
    } catch (error) {
      refuse(error);
      at("start").disabled = false;
    }
  });

  const begin = async () => {
    for (const part of ["searcher", "pruner"]) {
      try {
        algorithms[part] = (await ask(`/${part}s`)).items;
      } catch (error) { refuse(error); continue; }
      at(part).replaceChildren(...algorithms[part].map((each) => element("option", { value: each.name, textContent: each.name })));
      at(part).value = part === "searcher" ? "auto" : "l1";
      parameters(part);
    }
    slide();
    await describe();
    plan();
    at("plan").dataset.ready = "yes";
  };
  begin();
})();
