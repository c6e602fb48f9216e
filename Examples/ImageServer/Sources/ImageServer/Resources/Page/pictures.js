// Pictures of the server: fetched once, shown in <img>, and the buttons that each of them has.
import { bytes } from "./server.js";
import { confirmDeletion } from "./dialogs.js";

/** By name: the promise of the bytes and of a URL that shows them. */
const fetched = new Map();

/** The bytes of a picture as `{ blob, url }`. */
export function load(name) {
  if (!fetched.has(name)) {
    const promise = bytes(`api/pictures/${encodeURIComponent(name)}`).then((blob) => ({ blob, url: URL.createObjectURL(blob) }));
    promise.catch(() => fetched.delete(name));
    fetched.set(name, promise);
  }
  return fetched.get(name);
}

/** Frees what a deleted picture took. */
export function forget(name) {
  fetched.get(name)?.then(({ url }) => URL.revokeObjectURL(url), () => {});
  fetched.delete(name);
}

/** Pictures that are smaller than their box show their pixels; larger ones are smooth. */
const boxes = new ResizeObserver((entries) => {
  for (const { target } of entries) target.classList.toggle("pixelated", target.naturalWidth < target.clientWidth);
});

function watch(image) {
  image.addEventListener("load", () => image.classList.toggle("pixelated", image.naturalWidth < image.clientWidth));
  boxes.observe(image);
}

/** An <img> of a picture, fetched when it comes near the window. */
export function imageOf(picture) {
  const image = document.createElement("img");
  [image.width, image.height] = [picture.width, picture.height];
  image.alt = picture.request?.prompt || picture.name;
  image.dataset.name = picture.name;
  watch(image);
  nearby.observe(image);
  return image;
}

const nearby = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    nearby.unobserve(target);
    load(target.dataset.name).then(({ url }) => { target.src = url; }, (error) => { target.alt = error.message; });
  }
}, { rootMargin: "300px" });

/** What can be done with a picture. `on` has the functions `use`, `start` and `deleted`, each of which takes the picture. */
export function actions(picture, on) {
  const row = document.createElement("div");
  row.className = "row actions";
  const add = (tag, words, act) => {
    const element = document.createElement(tag);
    element.textContent = words;
    if (tag === "button") element.type = "button";
    element.addEventListener("click", act);
    row.append(element);
    return element;
  };
  add("button", "Use these settings", () => on.use(picture));
  add("button", "Start from this picture", () => on.start(picture));
  const link = add("a", "Download", () => {});
  link.className = "button";
  link.download = picture.name;
  link.href = `api/pictures/${encodeURIComponent(picture.name)}?download=1`;
  // A link cannot send the key, so it leads to the bytes that are here already.
  load(picture.name).then(({ url }) => { link.href = url; }, () => {});
  add("button", "Delete", async () => {
    if (await confirmDeletion("Delete this picture? It cannot be brought back.")) on.deleted(picture);
  }).className = "danger";
  return row;
}
