// The stage: the job that is drawn now with its preview, what became of it, and the jobs that wait.
import { cancel, unfinished } from "./jobs.js";
import { actions, imageOf } from "./pictures.js";
import { model } from "./choices.js";
import { announcement, standing } from "./words.js";

const element = (id) => document.getElementById(id);
let shown = null, preview = null, on = {};

/** Says what the buttons of pictures do, and `open(pictures, index)`, which shows one larger; `fail(error)` is told what went wrong. */
export function listen(listeners) { on = listeners; }

/** Shows how a job stands, if it is the one on the stage or takes its place. */
export function show(job) {
  if (takesStage(job)) showOnStage(job);
  showQueue();
}

/** A job takes the stage when nothing is on it that matters more. */
function takesStage(job) {
  if (shown?.id === job.id) return true;
  if (shown && isUnderWay(shown)) return job.state === "drawing" && shown.state === "waiting";
  return job.state !== "cancelled";
}

function showOnStage(job) {
  if (shown?.id !== job.id) clear();
  shown = job;
  const underWay = isUnderWay(job);
  // Who cancels with the keyboard goes on from there.
  if (!underWay && document.activeElement === element("cancel")) element("generate").focus();
  element("work").hidden = !underWay;
  element("work-words").textContent = standing(job);
  if (job.progress && job.state === "drawing" && job.progress.phase !== "loading") element("work-bar").value = job.progress.fraction;
  else element("work-bar").removeAttribute("value");
  announce(announcement(job));
  document.title = underWay && job.progress ? `${Math.round(job.progress.fraction * 100)} % · LatentDiffusion` : "LatentDiffusion";
  if (!underWay) showEnd(job);
  else if (!preview) showEmptyFrame(job);
}

const isUnderWay = (job) => job.state === "waiting" || job.state === "drawing";

function announce(words) {
  if (element("news").textContent !== words) element("news").textContent = words;
}

function clear() {
  shown = preview = null;
  element("canvas").replaceChildren();
  element("results").replaceChildren();
  element("canvas").classList.remove("many");
  element("failure").hidden = element("warnings").hidden = true;
}

/** The size that a job's pictures will have, as far as the page knows it. */
function sizeOf(job) {
  const usual = model();
  return { width: job.request?.width || usual?.width || 1, height: job.request?.height || usual?.height || 1 };
}

/** An empty frame in the picture's shape, until there is something to see. */
function showEmptyFrame(job) {
  const { width, height } = sizeOf(job), frame = document.createElement("div");
  frame.className = "frame waiting";
  shape(frame, width, height);
  element("canvas").replaceChildren(frame);
}

/** The shape of a picture, as large as the stage lets it be. */
function shape(frame, width, height) { frame.style.setProperty("--shape", `${width / height}`); }

/** Shows a preview, a PNG in base64, as large as the picture will be. */
export function showPreview(job, base64) {
  if (shown?.id !== job.id) return;
  if (!preview) {
    const image = document.createElement("img"), { width, height } = job.request ?? {};
    image.className = "frame preview pixelated";
    image.alt = "The picture as it is now";
    image.addEventListener("load", () => shape(image, ...(width && height ? [width, height] : [image.naturalWidth, image.naturalHeight])));
    element("canvas").replaceChildren(image);
    preview = image;
  }
  preview.src = `data:image/png;base64,${base64}`;
}

function showEnd(job) {
  element("failure").hidden = job.state !== "failed";
  element("failure").textContent = job.error ?? "";
  const warnings = job.warnings ?? [];
  element("warnings").hidden = warnings.length === 0;
  element("warnings").replaceChildren(...warnings.map((words) => {
    const item = document.createElement("li");
    item.textContent = words;
    return item;
  }));
  if (job.state === "done") showPictures(job);
  else if (job.state === "failed" || !preview) element("canvas").replaceChildren(note(standing(job)));
  preview = null;
}

function note(words) {
  const note = document.createElement("p");
  note.className = "hint";
  note.textContent = words;
  return note;
}

function showPictures(job) {
  const pictures = picturesOf(job);
  element("canvas").classList.toggle("many", pictures.length > 1);
  element("canvas").replaceChildren(...pictures.map((picture, index) => {
    const button = document.createElement("button"), image = imageOf(picture);
    button.type = "button";
    button.className = "frame";
    button.title = "Show it with its settings";
    shape(button, picture.width, picture.height);
    button.append(image);
    button.addEventListener("click", () => on.open(pictures, index));
    return button;
  }));
  element("results").replaceChildren(note(standing(job)), ...(pictures.length === 1 ? [actions(pictures[0], on)] : []));
}

/** A finished job's pictures with what they were asked for. */
export const picturesOf = (job) => job.pictures.map((picture) => ({ ...picture, request: job.request, created: job.created }));

/** Takes a deleted picture off the stage. */
export function drop(name) {
  if (!shown?.pictures?.some((picture) => picture.name === name)) return;
  shown = { ...shown, pictures: shown.pictures.filter((picture) => picture.name !== name) };
  if (shown.pictures.length) return showPictures(shown);
  clear();
  element("canvas").replaceChildren(element("empty") ?? note("Pictures appear here."));
}

/** Shows the jobs that wait. An entry stays the same element while its job waits, so that it keeps the focus. */
function showQueue() {
  const jobs = unfinished().filter((job) => job.id !== shown?.id), queue = element("queue");
  element("waiting").hidden = jobs.length === 0;
  const ids = new Set(jobs.map((job) => job.id));
  for (const entry of [...queue.children]) if (!ids.has(entry.dataset.id)) entry.remove();
  for (const job of jobs) {
    const entry = queue.querySelector(`[data-id="${CSS.escape(job.id)}"]`) ?? queue.appendChild(queued(job));
    const words = `${job.request?.prompt || "No prompt"} – ${standing(job)}`;
    if (entry.firstChild.textContent !== words) entry.firstChild.textContent = words;
  }
}

function queued(job) {
  const entry = document.createElement("li"), button = document.createElement("button");
  entry.dataset.id = job.id;
  button.type = "button";
  button.textContent = "Cancel";
  button.setAttribute("aria-label", `Cancel ${job.request?.prompt || "the job"}`);
  button.addEventListener("click", () => stop(job));
  entry.append(document.createElement("span"), button);
  return entry;
}

async function stop(job) {
  try { await cancel(job); } catch (error) { on.fail(error); }
}

element("cancel").addEventListener("click", () => { if (shown) stop(shown); });
