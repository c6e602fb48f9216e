// The page: puts its parts together, sends what the form asks for, and says what went wrong.
import * as choices from "./choices.js";
import * as form from "./form.js";
import * as gallery from "./gallery.js";
import * as jobs from "./jobs.js";
import * as mask from "./mask-editor.js";
import * as stage from "./stage.js";
import { extension } from "./frame.js";
import { load as loadPicture } from "./pictures.js";
import { dataURL, picture, recall as recallPicture, start } from "./start-picture.js";

const element = (id) => document.getElementById(id);
let lastSeed = null;

/** Says at the top of the page what concerns no field, or takes it back with null. */
function notice(sentence) {
  element("notice").textContent = sentence ?? "";
  element("notice").hidden = !sentence;
}

/** Says what went wrong: beside its field, or at the top. */
function fail(error) {
  if (!form.blame(error.param, error.message)) {
    notice(error.message);
    element("notice").scrollIntoView({ block: "nearest" });
  }
}

// Sending

/** What the form asks for; what is missing or unreadable is said, and null returned. */
async function request() {
  const unreadable = form.unreadable();
  if (unreadable) return refuse(unreadable, "This is not a number.");
  const { left, right, top, bottom, strength, keep_unmasked, ...all } = form.values();
  const loras = choices.chosenLoRAs();
  const result = { ...all, prompt: all.prompt ?? "", ...(loras.length ? { loras } : {}), preview_every: 1 };
  if (form.mode === "text") return result;
  if (!picture) return refuse("image", "Choose a picture to start from.");
  result.image = await dataURL(picture.blob);
  if (form.mode === "outpaint") return extended(result);
  if (strength !== undefined) result.strength = strength;
  if (form.mode === "image") return result;
  const png = await mask.png();
  if (!png) return refuse("mask", "Paint where the picture is to be drawn anew.");
  return { ...result, mask: await dataURL(png), keep_unmasked };
}

function extended({ width, height, ...rest }) {
  const extend = extension();
  if (!Object.values(extend).some((pixels) => pixels !== 0)) return refuse("extend", "Say on one side at least how many pixels to add.");
  return { ...rest, extend };
}

function refuse(param, sentence) {
  form.blame(param, sentence);
  return null;
}

let isSending = false;

async function generate() {
  if (isSending) return;
  isSending = true;
  form.forgive();
  notice(null);
  try {
    const asked = await request();
    if (asked) {
      await jobs.send(asked);
      bringIntoView(element("stage"));
    }
  } catch (error) {
    fail(error);
  }
  isSending = false;
}

/** On a small window the stage is below the form. */
function bringIntoView(part) {
  if (part.getBoundingClientRect().top < innerHeight / 2 && part.getBoundingClientRect().bottom > 0) return;
  const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  part.scrollIntoView({ behavior: isCalm ? "auto" : "smooth", block: "start" });
}

// What is done with a picture

const onPictures = {
  fail,
  open: gallery.open,
  use(picture) {
    const asked = picture.request ?? {};
    const { left, right, top, bottom } = asked.extend ?? {};
    // The picture's own seed: the request's is that of the first of several.
    form.fill({ ...asked, seed: picture.seed, count: null, left, right, top, bottom });
    choices.fillLoRAs(asked.loras ?? []);
    form.choose(modes[asked.task] ?? "text");
    leaveViewer();
  },
  async start(picture) {
    try {
      const { blob } = await loadPicture(picture.name);
      await start(blob, "A picture of the gallery");
      leaveViewer();
    } catch (error) { fail(error); }
  },
  async deleted(picture) {
    try {
      await gallery.discard(picture);
      stage.drop(picture.name);
      gallery.close();
    } catch (error) {
      gallery.close();
      fail(error);
    }
  },
};

const modes = { "image-to-image": "image", inpainting: "inpaint", outpainting: "outpaint" };

function leaveViewer() {
  gallery.close();
  bringIntoView(element("form"));
  element("prompt").focus({ preventScroll: true });
}

// Jobs

function changed(job) {
  stage.show(job);
  // Of several pictures, each is in the gallery when it is ready.
  if (job.pictures.length) gallery.add(stage.picturesOf(job));
}

function finished(job) {
  if (job.state !== "done") return;
  rememberSeed();
  // A model that was loaded for it knows its defaults now.
  if (!choices.model()?.loaded) choices.reloadModels().catch(() => {});
}

/** A deleted picture's seed can still be had again. */
function rememberSeed() {
  lastSeed = gallery.newest()?.seed ?? lastSeed;
  element("seed-last").disabled = lastSeed === null;
}

jobs.listen({
  changed,
  preview: stage.showPreview,
  finished,
  trouble: (error) => notice(error && `${error.message} Trying again …`),
});
stage.listen(onPictures);
gallery.listen(onPictures);
form.onChange(() => choices.showDefaults(form.mode === "text" ? null : picture));
element("seed-last").addEventListener("click", () => form.set("seed", lastSeed));
element("form").addEventListener("submit", (event) => {
  event.preventDefault();
  generate();
});
if (/Mac|iPhone|iPad/.test(navigator.platform)) element("go-hint").textContent = "or ⌘ Enter";

/** Asks the server for everything, until it answers. */
async function begin() {
  for (;;) {
    try {
      await choices.load();
      await Promise.all([gallery.load(), jobs.recall()]);
      rememberSeed();
      return notice(null);
    } catch (error) {
      notice(error.status === 0 ? `${error.message} Trying again …` : error.message);
      if (error.status !== 0) throw error;
      await new Promise((resolve) => setTimeout(resolve, 3000));
    }
  }
}

form.recall();
recallPicture();
begin();
