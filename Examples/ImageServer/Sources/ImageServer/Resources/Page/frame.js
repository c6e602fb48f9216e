// The frame of an outpainting: how far a picture grows, drawn to scale.
import { onChange, values } from "./form.js";
import { picture } from "./start-picture.js";
import { sizeInWords } from "./words.js";

const element = (id) => document.getElementById(id);
const sides = ["left", "right", "top", "bottom"];

/** The pixels to add on each side. */
export function extension() {
  const all = values();
  return Object.fromEntries(sides.map((side) => [side, all[side] ?? 0]));
}

function place(id, x, y, width, height) {
  for (const [name, value] of Object.entries({ x, y, width, height })) element(id).setAttribute(name, value);
}

function draw() {
  element("frame").toggleAttribute("hidden", !picture);
  element("frame-words").textContent = "";
  if (!picture) return;
  const by = extension();
  for (const side of sides) by[side] = Math.max(0, by[side]);
  const width = by.left + picture.width + by.right, height = by.top + picture.height + by.bottom;
  element("frame").setAttribute("viewBox", `0 0 ${width} ${height}`);
  element("frame").classList.toggle("pixelated", width < 400);
  place("frame-outer", 0, 0, width, height);
  place("frame-inner", by.left, by.top, picture.width, picture.height);
  place("frame-picture", by.left, by.top, picture.width, picture.height);
  element("frame-picture").setAttribute("href", picture.url);
  element("frame-words").textContent = `The picture grows from ${sizeInWords(picture.width, picture.height)} to ${sizeInWords(width, height)}.`;
}

onChange(draw);
