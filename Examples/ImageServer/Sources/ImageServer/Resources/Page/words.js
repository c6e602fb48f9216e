// What the server says in numbers and names, as words.

export const sizeInWords = (width, height) => `${width} × ${height}`;

function secondsInWords(seconds) {
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 99.5) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 100 ? `${minutes} min` : `${Math.round(minutes / 60)} h`;
}

const phases = { loading: "Loading the model", encoding: "Reading the prompt", decoding: "Making the picture of the latents" };

/** Where a job stands. */
export function standing(job) {
  switch (job.state) {
    case "waiting":
      if (!job.position) return "Waiting";
      return job.position === 1 ? "Waiting, next in line" : `Waiting, number ${job.position} in line`;
    case "drawing": return drawing(job.progress);
    case "done": return job.seconds == null ? "Done" : `Done in ${secondsInWords(job.seconds)}`;
    case "cancelled": return "Cancelled";
    default: return "Failed";
  }
}

function drawing(progress) {
  if (!progress) return "Starting";
  if (progress.phase !== "denoising") return phases[progress.phase] ?? "Drawing";
  const left = progress.seconds_left == null ? "" : `, ${secondsInWords(progress.seconds_left)} left`;
  const which = progress.pictures > 1 ? `Picture ${progress.picture} of ${progress.pictures}, step` : "Step";
  return `${which} ${progress.step} of ${progress.steps}${left}`;
}

/** What a screen reader hears of a job: what changes four times a drawing at most. */
export function announcement(job) {
  if (job.state !== "drawing") return job.state === "failed" ? `Failed: ${job.error}` : standing(job);
  const quarters = Math.floor((job.progress?.fraction ?? 0) * 4);
  return quarters < 1 ? "Drawing" : `Drawing, ${quarters * 25} percent`;
}

/** The settings that a picture was asked for with, as [name, value], in the order of the form. */
export function settingsInWords(picture, schedulerLabel) {
  const asked = picture.request ?? {};
  const extended = Object.entries(asked.extend ?? {}).filter(([, pixels]) => pixels);
  const all = [
    ["Prompt", asked.prompt],
    ["Negative prompt", asked.negative_prompt],
    ["Model", asked.model],
    ["LoRAs", (asked.loras ?? []).map((lora) => `${lora.name} × ${lora.strength ?? 1}`).join(", ")],
    ["Sampler", asked.scheduler && schedulerLabel(asked.scheduler)],
    ["Spacing", asked.spacing],
    ["Steps", asked.steps],
    ["Guidance", asked.guidance],
    ["Seed", picture.seed],
    ["Size", sizeInWords(picture.width, picture.height)],
    ["Denoising strength", asked.strength],
    ["Extended by", extended.map(([side, pixels]) => `${pixels} ${side}`).join(", ")],
    ["Drawn", picture.created && new Date(picture.created * 1000).toLocaleString()],
  ];
  return all.filter(([, value]) => value !== undefined && value !== null && value !== "");
}
