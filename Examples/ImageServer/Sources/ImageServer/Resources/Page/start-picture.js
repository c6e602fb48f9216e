// The picture to start from: chosen, dropped, pasted, or taken from the gallery.
import { blame, changed, choose, forgive, mode } from "./form.js";
import { limits } from "./choices.js";
import { forTab } from "./storage.js";
import { sizeInWords } from "./words.js";

const element = (id) => document.getElementById(id);
const changes = new EventTarget();

/** The chosen picture: `{ width, height, url, blob }`, or null. The URL shows it, and the blob is sent. */
export let picture = null;

/** Calls `listener` when another picture was chosen, and says whether it is the one from before a reload. */
export const onPicture = (listener) => changes.addEventListener("change", ({ detail }) => listener(detail.isFromBefore));

const memory = "latent-diffusion.picture";
/** Larger pictures would fill what a browser keeps for a page. */
const remembered = 1 << 21;

function show(chosen, words, isFromBefore = false) {
  if (picture) URL.revokeObjectURL(picture.url);
  picture = chosen;
  element("started").hidden = !chosen;
  element("drop").hidden = Boolean(chosen);
  if (chosen) element("start-picture").src = chosen.url;
  else element("start-picture").removeAttribute("src");
  element("start-words").textContent = words;
  element("file").value = "";
  remember(words);
  changes.dispatchEvent(new CustomEvent("change", { detail: { isFromBefore } }));
  changed();
}

/** Keeps the picture until the tab is closed, so that it survives a reload. */
async function remember(words) {
  forTab.remove(memory);
  if (!picture || picture.blob.size > remembered) return;
  const { width, height, blob } = picture, url = await dataURL(blob);
  // Another one may have been chosen meanwhile.
  if (picture?.blob === blob) forTab.set(memory, JSON.stringify({ width, height, words, url }));
}

/** Takes the picture that was there before a reload. */
export function recall() {
  const stored = forTab.value(memory);
  if (!stored) return;
  const { width, height, words } = stored;
  const blob = new Blob([Uint8Array.from(atob(stored.url.split(",")[1]), (letter) => letter.charCodeAt(0))], { type: "image/png" });
  show({ width, height, url: URL.createObjectURL(blob), blob }, words, true);
}

/** Takes a file as the picture to start from. */
export async function start(blob, name) {
  if (mode === "text") choose("image");
  forgive();
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob);
  } catch {
    blame("image", `${name} is no picture that this browser reads.`);
    return;
  }
  const { width, height } = fitted(bitmap);
  const isSame = width === bitmap.width && height === bitmap.height;
  // A PNG goes as it is. Others are turned as cameras say, and become one, so that the server sees what the page shows.
  const sent = isSame && blob.type === "image/png" ? blob : await drawn(bitmap, width, height);
  const size = isSame ? sizeInWords(width, height)
    : `${sizeInWords(width, height)}, made smaller from ${sizeInWords(bitmap.width, bitmap.height)}, which is more than this server draws`;
  bitmap.close();
  show({ width, height, url: URL.createObjectURL(sent), blob: sent }, `${name}, ${size}`);
}

/** The size that the server draws at most, in the picture's proportions. */
function fitted({ width, height }) {
  const { pixels = Infinity, side = Infinity } = limits();
  const scale = Math.min(1, side / Math.max(width, height), Math.sqrt(pixels / (width * height)));
  return { width: Math.max(1, Math.floor(width * scale)), height: Math.max(1, Math.floor(height * scale)) };
}

function drawn(bitmap, width, height) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

/** The picture as a data URL. */
export function dataURL(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

const pictureIn = (files) => [...files].find((file) => file.type.startsWith("image/"));

element("file").addEventListener("change", () => {
  const [file] = element("file").files;
  if (file) start(file, file.name);
});
element("start-remove").addEventListener("click", () => {
  show(null, "");
  element("file").focus();
});
addEventListener("paste", (event) => {
  const file = pictureIn(event.clipboardData.files);
  if (!file) return;
  event.preventDefault();
  start(file, "The pasted picture");
});
addEventListener("dragover", (event) => {
  if (![...event.dataTransfer.types].includes("Files")) return;
  event.preventDefault();
  element("form").classList.add("dropping");
});
addEventListener("dragleave", (event) => { if (!event.relatedTarget) element("form").classList.remove("dropping"); });
addEventListener("drop", (event) => {
  element("form").classList.remove("dropping");
  if (event.dataTransfer.files.length === 0) return;
  event.preventDefault();
  const file = pictureIn(event.dataTransfer.files) ?? event.dataTransfer.files[0];
  start(file, file.name);
});
