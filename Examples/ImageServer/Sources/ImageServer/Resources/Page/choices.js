// What the server offers: models with their defaults, samplers, spacings and LoRAs.
import { get } from "./server.js";
import { changed, keepUnlisted, mode, rememberAlso, set } from "./form.js";
import { sizeInWords } from "./words.js";

const element = (id) => document.getElementById(id);
/** What a model does in a mode: an outpainting is an inpainting of what is added. */
const tasks = { text: ["text-to-image"], image: ["image-to-image"], inpaint: ["inpainting"], outpaint: ["outpainting", "inpainting"] };
let models = [], schedulers = [], loras = [], about = null;

/** The limits that the server states, or none. */
export const limits = () => about?.limits ?? {};

/** The chosen model, or null while none is known. */
export const model = () => models.find((model) => model.name === element("model").value) ?? null;

export const schedulerLabel = (name) => schedulers.find((scheduler) => scheduler.name === name)?.label ?? name;

/** Asks the server for everything that it offers. */
export async function load() {
  let spacings;
  [about, { models }, { schedulers, spacings }, { loras }] =
    await Promise.all(["about", "models", "schedulers", "loras"].map((name) => get(`api/${name}`)));
  element("name").textContent = about.name;
  element("version").textContent = about.version;
  list("model", models.map((model) => new Option(model.name, model.name)), about.default_model);
  list("scheduler", [new Option("The model’s own", ""), ...schedulers.map(({ name, label }) => new Option(label, name))]);
  list("spacing", [new Option("The sampler’s own", ""), ...spacings.map((name) => new Option(name, name))]);
  for (const select of document.querySelectorAll("#lora-list select")) listLoRAs(select);
  element("loras").hidden = loras.length === 0 && !element("lora-list").children.length;
  changed();
}

/** Asks for the models again: one that has been loaded knows its defaults. */
export async function reloadModels() {
  ({ models } = await get("api/models"));
  changed();
}

/** Fills a list, and keeps what was chosen. */
function list(id, options, usual = "") {
  const select = element(id), chosen = select.value || usual;
  select.replaceChildren(...options);
  select.value = chosen;
  keepUnlisted(select, chosen);
}

// Defaults

/** Shows the chosen model's defaults where a field is empty. `pictureSize` is that of the picture to start from, or null. */
export function showDefaults(pictureSize) {
  const chosen = model();
  const size = mode === "text" ? chosen : sizeFrom(pictureSize, chosen);
  for (const [id, value] of [["steps", chosen?.steps], ["guidance", chosen?.guidance], ["width", size?.width], ["height", size?.height]]) {
    element(id).placeholder = value ?? "default";
  }
  element("strength").placeholder = mode === "inpaint" ? "1" : "0.8";
  element("scheduler").options[0].text = chosen?.scheduler ? `${schedulerLabel(chosen.scheduler)} (the model’s)` : "The model’s own";
  const scheduler = schedulers.find(({ name }) => name === (element("scheduler").value || chosen?.scheduler));
  hint("scheduler-hint", scheduler && `${scheduler.label}: ${scheduler.purpose}.`);
  for (const option of element("spacing").options) option.disabled = Boolean(option.value && scheduler && !scheduler.spacings.includes(option.value));
  hint("model-hint", wordsOf(chosen));
  showVocabulary(chosen?.vocabulary ?? []);
}

/** The size that the server takes for a picture: its own, unless it is far larger than the model's. */
function sizeFrom(picture, model) {
  if (!picture) return { width: "picture’s", height: "picture’s" };
  return model?.width && picture.width * picture.height > 4 * model.width * model.height ? null : picture;
}

function wordsOf(chosen) {
  if (!chosen) return null;
  if (chosen.tasks && !tasks[mode].some((task) => chosen.tasks.includes(task))) return `This model cannot do this; it does ${chosen.tasks.join(", ")}.`;
  return chosen.width ? `Made for pictures of ${sizeInWords(chosen.width, chosen.height)} pixels.` : null;
}

function hint(id, words) {
  element(id).textContent = words ?? "";
  element(id).hidden = !words;
}

let shownVocabulary = null;

function showVocabulary(words) {
  if (shownVocabulary === words.join("\n")) return;
  shownVocabulary = words.join("\n");
  element("examples").hidden = words.length === 0;
  element("vocabulary").replaceChildren(...words.map((word) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = word;
    button.addEventListener("click", () => set("prompt", word));
    return button;
  }));
}

// LoRAs

function listLoRAs(select) {
  const chosen = select.value;
  select.replaceChildren(new Option("Choose one", ""), ...loras.map(({ name }) => new Option(name, name)));
  select.value = chosen;
  keepUnlisted(select, chosen);
}

function addLoRA({ name = "", strength = "" } = {}) {
  const row = document.createElement("li"), select = document.createElement("select");
  const number = document.createElement("input"), button = document.createElement("button");
  select.setAttribute("aria-label", "LoRA");
  listLoRAs(select);
  select.value = name;
  keepUnlisted(select, name);
  number.type = "number";
  number.step = "0.1";
  number.placeholder = "1";
  number.value = strength;
  number.setAttribute("aria-label", "Strength of the LoRA");
  button.type = "button";
  button.textContent = "Remove";
  button.addEventListener("click", () => {
    row.remove();
    element("lora-add").focus();
    changed();
  });
  row.append(select, number, button);
  element("lora-list").append(row);
  return select;
}

/** The chosen LoRAs, each with its strength where it has one. */
export function chosenLoRAs() {
  return [...element("lora-list").children].flatMap((row) => {
    const name = row.querySelector("select").value, strength = row.querySelector("input").value;
    return name === "" ? [] : [{ name, ...(strength === "" ? {} : { strength: Number(strength) }) }];
  });
}

export function fillLoRAs(chosen) {
  element("lora-list").replaceChildren();
  for (const lora of chosen) addLoRA(lora);
  element("loras").hidden = loras.length === 0 && chosen.length === 0;
  changed();
}

rememberAlso("loras", chosenLoRAs, fillLoRAs);
element("lora-add").addEventListener("click", () => addLoRA().focus());
