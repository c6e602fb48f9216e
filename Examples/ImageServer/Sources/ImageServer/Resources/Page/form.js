// The form: its modes as tabs, the values of its fields, what is wrong beside them, and their memory over a reload.
import { forGood } from "./storage.js";

const form = document.getElementById("form");
const tabs = [...document.querySelectorAll("#tabs [role=tab]")];
const memory = "latent-diffusion.form";
const modes = ["text", "image", "inpaint", "outpaint"];
const fields = [...form.querySelectorAll("[name]")];
const changes = new EventTarget();

export let mode = "text";

/** Calls `listener` when the mode or a field has changed. */
export const onChange = (listener) => changes.addEventListener("change", listener);

export function changed() {
  remember();
  changes.dispatchEvent(new Event("change"));
}

// Modes

export function choose(newMode) {
  mode = modes.includes(newMode) ? newMode : "text";
  form.dataset.mode = mode;
  for (const tab of tabs) {
    const chosen = tab.dataset.mode === mode;
    tab.setAttribute("aria-selected", chosen);
    tab.tabIndex = chosen ? 0 : -1;
    if (chosen) document.getElementById("panel").setAttribute("aria-labelledby", tab.id);
  }
  for (const element of form.querySelectorAll("[data-modes]")) {
    element.hidden = !element.dataset.modes.split(" ").includes(mode);
  }
  forgive();
  changed();
}

function moveAmongTabs(event) {
  const now = tabs.findIndex((tab) => tab.dataset.mode === mode), last = tabs.length - 1;
  const next = { ArrowRight: now === last ? 0 : now + 1, ArrowLeft: now === 0 ? last : now - 1, Home: 0, End: last }[event.key];
  if (next === undefined) return;
  event.preventDefault();
  choose(tabs[next].dataset.mode);
  tabs[next].focus();
}

// Values

/** The value of each field that is not empty: texts, numbers, and whether a box is ticked. */
export function values() {
  const result = {};
  for (const field of fields) {
    if (field.type === "checkbox") result[field.name] = field.checked;
    else if (field.value !== "") result[field.name] = field.type === "number" ? numberOf(field) : field.value;
  }
  return result;
}

/** A seed of more digits than a number has here stays a text. */
function numberOf(field) {
  const number = Number(field.value);
  return field.name === "seed" && /^\d+$/.test(field.value) && !Number.isSafeInteger(number) ? field.value : number;
}

/** Fills the fields; those without a value become empty. */
export function fill(newValues) {
  for (const field of fields) {
    const value = newValues[field.name];
    if (field.type === "checkbox") field.checked = value ?? field.defaultChecked;
    else field.value = value ?? "";
    if (field.tagName === "SELECT") keepUnlisted(field, value);
    if (field.tagName === "TEXTAREA") fit(field);
  }
  changed();
}

/** Sets one field, as if somebody had typed it. */
export function set(name, value) {
  const field = fields.find((field) => field.name === name);
  field.value = value;
  if (field.tagName === "TEXTAREA") fit(field);
  forgive();
  changed();
}

/** A choice that the list does not have (yet) stays a choice: the server says whether it knows it. */
export function keepUnlisted(select, value) {
  if (value === undefined || value === null || select.value === value) return;
  select.add(new Option(value, value));
  select.value = value;
}

/** A text's field is as high as its text. */
function fit(area) {
  area.style.height = "auto";
  area.style.height = `${area.scrollHeight + 2}px`;
}

// What is wrong

/** Says beside the field `param` what is wrong with it. Returns false where no such field can be seen. */
export function blame(param, sentence) {
  const name = /^\w+/.exec(param ?? "")?.[0];
  const place = name && form.querySelector(`[data-param="${name}"]`);
  if (!place || place.closest("[hidden]")) return false;
  const words = document.createElement("p");
  words.className = "wrong";
  words.id = `${name}-wrong`;
  words.setAttribute("role", "alert");
  words.textContent = sentence;
  place.append(words);
  const field = place.querySelector("input:not(.unseen), textarea, select, canvas") ?? place.querySelector("input");
  if (field) {
    field.setAttribute("aria-invalid", "true");
    field.setAttribute("aria-errormessage", words.id);
    field.focus();
  }
  return true;
}

/** Takes back what was said to be wrong. */
export function forgive() {
  for (const words of form.querySelectorAll(".wrong")) words.remove();
  for (const field of form.querySelectorAll("[aria-invalid]")) {
    field.removeAttribute("aria-invalid");
    field.removeAttribute("aria-errormessage");
  }
}

/** The first field whose content is no number, or null: browsers give such a field no value. */
export const unreadable = () => fields.find((field) => field.validity.badInput && !field.closest("[hidden]"))?.name ?? null;

// Memory

/** What other parts want to be remembered with the fields: their names, and functions that give and take it. */
const remembered = new Map();
export const rememberAlso = (name, give, take) => remembered.set(name, { give, take });

let recalling = false;

function remember() {
  if (recalling) return;
  const rest = [...remembered].map(([name, part]) => [name, part.give()]);
  forGood.set(memory, JSON.stringify({ mode, values: values(), ...Object.fromEntries(rest) }));
}

/** Fills the form as it was left. */
export function recall() {
  const stored = forGood.value(memory) ?? {};
  recalling = true;
  fill(stored.values ?? {});
  for (const [name, part] of remembered) if (stored[name] !== undefined) part.take(stored[name]);
  choose(stored.mode);
  recalling = false;
}

document.getElementById("seed-random").addEventListener("click", () => set("seed", ""));
document.getElementById("swap").addEventListener("click", () => {
  const { width = "", height = "" } = values();
  set("width", height);
  set("height", width);
});
for (const tab of tabs) tab.addEventListener("click", () => choose(tab.dataset.mode));
document.getElementById("tabs").addEventListener("keydown", moveAmongTabs);
form.addEventListener("input", (event) => {
  if (event.target.tagName === "TEXTAREA") fit(event.target);
  changed();
});
form.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});
