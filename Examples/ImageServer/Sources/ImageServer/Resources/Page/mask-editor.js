// The editor of the mask: brush, eraser, undo, with mouse, touch, pen or keyboard. The mask is remembered until the tab is closed.
import { Mask } from "./mask.js";
import { forgive, onChange } from "./form.js";
import { onPicture, picture } from "./start-picture.js";
import { forTab } from "./storage.js";

const element = (id) => document.getElementById(id);
const canvas = element("mask-canvas"), ring = element("brush"), size = element("brush-size");
const kept = 32, memory = "latent-diffusion.mask";
let mask = null, states = [], place = { x: 0, y: 0 }, last = null, spaceIsDown = false;

/** The mask as a PNG, or null where nothing is painted. */
export const png = async () => mask && mask.share > 0 ? mask.png() : null;

const diameter = () => Number(size.value);
const erases = () => element("mask-erase").getAttribute("aria-pressed") === "true";

function begin(isFromBefore) {
  mask = picture && new Mask(picture.width, picture.height);
  states = [];
  if (isFromBefore) recall();
  else forTab.remove(memory);
  element("easel").hidden = element("mask-tools").hidden = !mask;
  element("mask-words").textContent = "";
  if (!mask) return;
  [canvas.width, canvas.height] = [mask.width, mask.height];
  element("mask-picture").src = picture.url;
  element("easel").classList.toggle("pixelated", mask.width < 400);
  const side = Math.min(mask.width, mask.height);
  size.max = Math.max(2, Math.round(side / 2));
  size.value = Math.max(1, Math.round(side / 8));
  place = { x: mask.width / 2, y: mask.height / 2 };
  draw();
}

/** Keeps the mask over a reload. */
function remember() {
  if (mask) forTab.set(memory, JSON.stringify({ width: mask.width, height: mask.height, runs: mask.runs }));
}

function recall() {
  const { width, height, runs } = forTab.value(memory) ?? {};
  if (width === mask.width && height === mask.height) mask.runs = runs;
}

function draw() {
  mask.draw(canvas, [15, 118, 110, 190], [0, 0, 0, 0]);
  element("mask-undo").disabled = states.length === 0;
  element("mask-words").textContent = `${(mask.share * 100).toFixed(mask.share < 0.1 ? 1 : 0)} % painted`;
  element("brush-words").textContent = `${diameter()} px`;
  showBrush();
}

/** Shows the brush where it is, in its size. */
function showBrush() {
  if (!mask) return;
  const scale = canvas.clientWidth / mask.width;
  ring.style.width = ring.style.height = `${diameter() * scale}px`;
  ring.style.left = `${place.x * scale}px`;
  ring.style.top = `${place.y * scale}px`;
  ring.classList.toggle("erasing", erases());
}

/** Keeps the mask as it is, for Undo. */
function keep() {
  states.push(mask.pixels.slice());
  if (states.length > kept) states.shift();
}

function change(what) {
  keep();
  what();
  draw();
  remember();
  forgive();
}

function undo() {
  const state = states.pop();
  if (state) mask.pixels = state;
  draw();
  remember();
}

function toggleErase() {
  element("mask-erase").setAttribute("aria-pressed", !erases());
  showBrush();
}

function resize(steps) {
  size.value = diameter() + steps * Math.max(1, Math.round(diameter() / 8));
  draw();
}

// Mouse, touch and pen

function point(event) {
  const box = canvas.getBoundingClientRect();
  return { x: (event.clientX - box.left) * mask.width / box.width, y: (event.clientY - box.top) * mask.height / box.height };
}

function strokeTo(event) {
  const next = point(event);
  // The other end of a pen erases, as does the second button of a mouse.
  mask.stroke(last, next, diameter(), erases() || event.buttons & 34 ? 0 : 1);
  last = next;
}

canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  keep();
  forgive();
  last = place = point(event);
  strokeTo(event);
  draw();
});
canvas.addEventListener("pointermove", (event) => {
  place = point(event);
  ring.hidden = false;
  if (!last) return showBrush();
  const events = event.getCoalescedEvents?.() ?? [];
  for (const each of events.length ? events : [event]) strokeTo(each);
  draw();
});
for (const name of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(name, () => {
    if (last) remember();
    last = null;
  });
}
canvas.addEventListener("pointerleave", () => { ring.hidden = document.activeElement !== canvas; });
canvas.addEventListener("contextmenu", (event) => event.preventDefault());

// Keyboard

const directions = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function move([x, y], isFine) {
  const step = isFine ? 1 : Math.max(1, Math.round(diameter() / 2));
  const inside = (value, end) => Math.min(end, Math.max(0, value));
  const next = { x: inside(place.x + x * step, mask.width), y: inside(place.y + y * step, mask.height) };
  if (spaceIsDown) mask.stroke(place, next, diameter(), erases() ? 0 : 1);
  place = next;
  draw();
}

function paintHere() {
  if (spaceIsDown) return;
  spaceIsDown = true;
  change(() => mask.disc(place.x, place.y, diameter(), erases() ? 0 : 1));
}

function liftBrush() {
  if (spaceIsDown) remember();
  spaceIsDown = false;
}

canvas.addEventListener("keydown", (event) => {
  const direction = directions[event.key];
  if (direction) move(direction, event.shiftKey);
  else if (event.key === " ") paintHere();
  else if (event.key === "e") toggleErase();
  else if (event.key === "[") resize(-1);
  else if (event.key === "]") resize(1);
  else if (event.key === "z" && (event.ctrlKey || event.metaKey)) undo();
  else return;
  event.preventDefault();
});
canvas.addEventListener("keyup", (event) => { if (event.key === " ") liftBrush(); });
canvas.addEventListener("focus", () => {
  ring.hidden = false;
  showBrush();
});
canvas.addEventListener("blur", () => {
  ring.hidden = true;
  liftBrush();
});

size.addEventListener("input", draw);
element("mask-erase").addEventListener("click", toggleErase);
element("mask-undo").addEventListener("click", undo);
element("mask-clear").addEventListener("click", () => change(() => mask.clear()));
element("mask-invert").addEventListener("click", () => change(() => mask.invert()));
addEventListener("resize", showBrush);
onPicture(begin);
onChange(showBrush);
