// The page's own jobs: sent, followed while they wait and are drawn, cancelled, and found again after a reload.
import { Refusal, events, get, post, remove } from "./server.js";
import { forGood } from "./storage.js";

const memory = "latent-diffusion.jobs";
const isUnfinished = (job) => job.state === "waiting" || job.state === "drawing";
const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

/** By identifier, in the order in which they were sent. */
const own = new Map();
let on = {};

/** The jobs that wait or are drawn. */
export const unfinished = () => [...own.values()].filter(isUnfinished);

/**
 * Says who is told: `changed(job)` after any change, `preview(job, base64)`, `finished(job)`, and `trouble(error)` when the connection
 * is lost, with null when it is back.
 */
export function listen(listeners) { on = listeners; }

/** Sends a request. Returns its job, or throws a `Refusal`. */
export async function send(request) {
  const job = await post("api/jobs", request);
  update(job);
  follow();
  return job;
}

export async function cancel(job) { update(await remove(`api/jobs/${job.id}`)); }

/** Finds the jobs again that were under way when the page was left. */
export async function recall() {
  const known = new Set(remembered());
  if (known.size === 0) return;
  const { jobs } = await get("api/jobs");
  for (const job of jobs.reverse()) if (known.has(job.id)) update(job);
  // What the server no longer knows is forgotten.
  const listed = new Set(jobs.map((job) => job.id));
  store([...known].filter((id) => listed.has(id) && isUnfinished(own.get(id))));
  follow();
}

function update(job) {
  const before = own.get(job.id);
  // What comes late does not bring a finished job back.
  if (before && !isUnfinished(before)) return;
  own.set(job.id, job);
  const ids = remembered().filter((id) => id !== job.id);
  store(isUnfinished(job) ? [...ids, job.id] : ids);
  on.changed(job);
  if (!isUnfinished(job)) on.finished(job);
}

const remembered = () => forGood.value(memory) ?? [];
const store = (ids) => forGood.set(memory, JSON.stringify(ids));

// Following

let isFollowing = false, isTroubled = false;

function tell(trouble) {
  if (!trouble && !isTroubled) return;
  isTroubled = Boolean(trouble);
  on.trouble(trouble);
}

/** Follows one job at a time, the next in line: browsers open few connections to a server. The others are asked for now and then. */
async function follow() {
  if (isFollowing) return;
  isFollowing = true;
  const timer = setInterval(() => { if (unfinished().length > 1) ask().catch(() => {}); }, 2000);
  try {
    for (let next = first(); next; next = first()) await followOne(next.id);
  } finally {
    clearInterval(timer);
    isFollowing = false;
  }
}

function first() {
  const place = (job) => job.state === "drawing" ? 0 : job.position ?? Infinity;
  return unfinished().sort((a, b) => place(a) - place(b))[0];
}

async function ask() {
  const { jobs } = await get("api/jobs");
  for (const job of jobs) if (own.has(job.id)) update(job);
}

async function followOne(id) {
  for (let wait = 0.5; isUnfinished(own.get(id)); wait = Math.min(10, wait * 2)) {
    try {
      for await (const { event, data } of events(`api/jobs/${id}/events`)) {
        tell(null);
        wait = 0.5;
        hear(id, event, data);
        if (!isUnfinished(own.get(id))) return;
      }
      // The stream ended without the job's end.
      update(await get(`api/jobs/${id}`));
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      if (error.status === 404) return update({ ...own.get(id), state: "failed", error: "The server no longer knows this job." });
      tell(error);
    }
    if (isUnfinished(own.get(id))) await pause(wait);
  }
}

function hear(id, event, data) {
  const job = own.get(id);
  if (event === "progress") update({ ...job, state: "drawing", position: null, progress: data });
  else if (event === "preview") on.preview(job, data.image);
  // A job that tells of a picture that is ready does not repeat how far the next one is.
  else if (event === "job") update({ ...data, progress: data.progress ?? job.progress });
  else if (["done", "failed", "cancelled"].includes(event)) update(data);
}
