// The server's interface: calls with the key that it may want, refusals as errors, and streams of events.
import { askForKey } from "./dialogs.js";
import { forTab } from "./storage.js";

/** What the server refused, or that it could not be reached. */
export class Refusal extends Error {
  /** The field of the request that is wrong, such as "steps", or null. */
  param = null;
  /** The status of HTTP; 0 where there was no answer. */
  status = 0;
}

const keyName = "latent-diffusion.key";

function headers(body) {
  const key = forTab.get(keyName);
  return {
    ...(key ? { Authorization: `Bearer ${key}` } : {}),
    ...(body === undefined ? {} : { "Content-Type": "application/json" }),
  };
}

// Seeds have up to 20 digits, and numbers here 15. So longer ones are texts on this side, and numbers on the server's.
// A text that contains such words has a backslash before each quotation mark, and stays as it is.

const written = (value) => JSON.stringify(value).replace(/"seed":"(\d+)"/g, '"seed":$1');
const read = (text) => JSON.parse(text.replace(/"seed":(\d{16,})/g, '"seed":"$1"'));

async function refusal(response) {
  const error = (await response.json().catch(() => null))?.error;
  const result = new Refusal(error?.message ?? `The server answers with the status ${response.status}.`);
  result.status = response.status;
  result.param = error?.param ?? null;
  const wait = Number(response.headers.get("Retry-After"));
  if (response.status === 429 && wait > 0) {
    const time = new Date(Date.now() + wait * 1000).toLocaleTimeString();
    result.message += ` Try again in ${wait === 1 ? "1 second" : `${wait} seconds`}, at ${time}.`;
  }
  return result;
}

/** One key is asked for at a time, also where several calls were refused together. */
let asking = null;

async function newKey(used) {
  // Another call may have brought a new key while this one was under way.
  if (forTab.get(keyName) !== used) return true;
  asking ??= askForKey(used !== null).finally(() => { asking = null; });
  const key = await asking;
  if (key === null) return false;
  forTab.set(keyName, key);
  return true;
}

async function call(method, path, { body, signal } = {}) {
  for (;;) {
    const used = forTab.get(keyName);
    let response;
    try {
      response = await fetch(path, {
        method, signal, headers: headers(body), body: body === undefined ? undefined : written(body),
      });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refusal("The server cannot be reached.");
    }
    if (response.ok) return response;
    if (response.status === 401 && await newKey(used)) continue;
    throw await refusal(response);
  }
}

const answer = async (response) => read(await response.text());

export const get = async (path) => answer(await call("GET", path));
export const post = async (path, body) => answer(await call("POST", path, { body }));
export const remove = async (path) => {
  const response = await call("DELETE", path);
  return response.status === 204 ? null : answer(response);
};
export const bytes = async (path) => (await call("GET", path)).blob();

/** The events of a stream, each `{ event, data }` with the data as JSON, until the stream ends. */
export async function* events(path, signal) {
  const response = await call("GET", path, { signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    let chunk;
    try {
      chunk = await reader.read();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refusal("The connection to the server is lost.");
    }
    if (chunk.done) return;
    const blocks = (text + chunk.value).split(/\r?\n\r?\n/);
    text = blocks.pop();
    for (const block of blocks) {
      const event = parsed(block);
      if (event) yield event;
    }
  }
}

function parsed(block) {
  const values = { event: "message", data: [] };
  for (const line of block.split(/\r?\n/)) {
    const [, name, value] = /^([^:]*):? ?(.*)$/s.exec(line);
    if (name === "event") values.event = value;
    if (name === "data") values.data.push(value);
  }
  return values.data.length ? { event: values.event, data: read(values.data.join("\n")) } : null;
}
