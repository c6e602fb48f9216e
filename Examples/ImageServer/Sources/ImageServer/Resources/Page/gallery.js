// The gallery: all pictures, newest first, and the dialog that shows one with its settings.
import { get, remove } from "./server.js";
import { schedulerLabel } from "./choices.js";
import { actions, forget, imageOf } from "./pictures.js";
import { settingsInWords } from "./words.js";

const element = (id) => document.getElementById(id);
const perPage = 24;
let pictures = [], next = null, on = {};

/** Says what the buttons of a picture do; `fail(error)` is told what went wrong. */
export function listen(listeners) { on = listeners; }

/** The newest picture, or undefined. */
export const newest = () => pictures[0];

/** Shows the newest pictures. */
export async function load() {
  const page = await get(`api/pictures?limit=${perPage}`);
  pictures = [];
  element("pictures").replaceChildren();
  append(page);
}

async function more() {
  const before = pictures.length;
  append(await get(`api/pictures?limit=${perPage}&before=${encodeURIComponent(next)}`));
  element("pictures").children[before]?.querySelector("button").focus();
}

function append(page) {
  const known = new Set(pictures.map((picture) => picture.name));
  const fresh = page.pictures.filter((picture) => !known.has(picture.name));
  pictures.push(...fresh);
  element("pictures").append(...fresh.map(card));
  next = page.next;
  showState();
}

/** Puts new pictures before the others. */
export function add(newPictures) {
  const known = new Set(pictures.map((picture) => picture.name));
  for (const picture of newPictures.filter(({ name }) => !known.has(name))) {
    pictures.unshift(picture);
    element("pictures").prepend(card(picture));
  }
  showState();
}

function showState() {
  element("gallery-empty").hidden = pictures.length > 0;
  element("more").hidden = !next;
}

function card(picture) {
  const item = document.createElement("li"), button = document.createElement("button"), words = document.createElement("span");
  button.type = "button";
  words.textContent = picture.request?.prompt || "No prompt";
  button.append(imageOf(picture), words);
  button.addEventListener("click", () => open(pictures, pictures.indexOf(picture)));
  item.dataset.name = picture.name;
  item.append(button);
  return item;
}

/** Deletes a picture from the server and from the page. */
export async function discard(picture) {
  await remove(`api/pictures/${encodeURIComponent(picture.name)}`);
  const index = pictures.findIndex(({ name }) => name === picture.name);
  if (index >= 0) pictures.splice(index, 1);
  element("pictures").querySelector(`[data-name="${CSS.escape(picture.name)}"]`)?.remove();
  forget(picture.name);
  showState();
}

// One picture

const viewer = element("viewer");
let opened = [], place = 0;

/** Opens the dialog with one of several pictures. */
export function open(several, index) {
  opened = several;
  show(index);
  if (!viewer.open) viewer.showModal();
}

export const close = () => viewer.close();

function show(index) {
  place = index;
  const picture = opened[index];
  element("viewer-title").textContent = picture.request?.prompt || picture.name;
  element("viewer-newer").disabled = index === 0;
  element("viewer-older").disabled = index === opened.length - 1;
  const side = document.createElement("div");
  side.append(settings(picture), actions(picture, on), asText(picture));
  const image = imageOf(picture);
  image.style.setProperty("--shape", `${picture.width / picture.height}`);
  element("viewer-body").replaceChildren(image, side);
}

function settings(picture) {
  const list = document.createElement("dl");
  for (const [name, value] of settingsInWords(picture, schedulerLabel)) {
    const term = document.createElement("dt"), words = document.createElement("dd");
    term.textContent = name;
    words.textContent = value;
    list.append(term, words);
  }
  return list;
}

/** The text that the picture's file carries, as stable-diffusion-webui writes and reads it. */
function asText(picture) {
  const details = document.createElement("details"), summary = document.createElement("summary"), text = document.createElement("pre");
  summary.textContent = "As text";
  text.textContent = picture.parameters ?? "";
  details.append(summary, text);
  details.hidden = !picture.parameters;
  return details;
}

function step(by) {
  const index = place + by;
  if (index >= 0 && index < opened.length) show(index);
}

element("viewer-newer").addEventListener("click", () => step(-1));
element("viewer-older").addEventListener("click", () => step(1));
element("viewer-close").addEventListener("click", close);
viewer.addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
});
viewer.addEventListener("click", (event) => { if (event.target === viewer) close(); });
element("more").addEventListener("click", () => more().catch((error) => on.fail(error)));
