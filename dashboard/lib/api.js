// Talks to the dashboard's own origin, and to nothing else.

/** A gateway that says nothing for this long is away: it promises an answer within 2 s whatever Redis does. */
const ANSWER_MS = 10_000;

/** An answer that was not 2xx, with the sentence that it carries. */
export class Refused extends Error {
  constructor(status, body) {
    super(body?.detail ?? `The gateway answered ${status}.`);
    this.status = status;
    this.errors = body?.errors ?? [];
    this.code = body?.code;
  }
}

/** Digits that a double cannot hold are kept, where the browser can. */
const keepDigits = (_key, value, context) =>
  typeof value === "number" &&
  context?.source &&
  JSON.rawJSON &&
  /[\d.]{16}/.test(context.source) &&
  String(value) !== context.source
    ? JSON.rawJSON(context.source)
    : value;

export const isRaw = (value) => JSON.isRawJSON?.(value) ?? false;

/** What to tell a reader when nothing answered. */
const inWords = (error) =>
  error.name === "TimeoutError" || error instanceof TypeError ? new Error("The gateway does not answer.") : error;

async function read(answer) {
  const text = await answer.text();
  let body;
  try {
    body = text === "" ? undefined : JSON.parse(text, keepDigits);
  } catch {
    body = undefined;
  }
  if (!answer.ok) throw new Refused(answer.status, body);
  return body;
}

/**
 * Asks, and reads the JSON of the answer.
 * @param path  relative to the page, which may lie at any path of its host; the gateway's own routes lie under api/
 * @throws Refused, or TypeError when nothing answers
 */
export async function call(method, path, body, headers = {}) {
  const answer = await fetch(path, {
    method,
    signal: AbortSignal.timeout(ANSWER_MS),
    headers: body === undefined ? headers : { "content-type": "application/json", ...headers },
    ...(body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) }),
    credentials: "same-origin",
    cache: "no-cache",
  }).catch((error) => {
    throw inWords(error);
  });
  return read(answer);
}

export const get = (path) => call("GET", path);
export const post = (path, body) => call("POST", path, body);

/** Sends a file and tells how far it is: fetch cannot. @param onProgress gets 0–1 */
export function upload(path, file, onProgress) {
  return new Promise((done, fail) => {
    const request = new XMLHttpRequest();
    request.open("POST", path);
    request.upload.addEventListener("progress", (e) => onProgress(e.lengthComputable ? e.loaded / e.total : 0));
    request.addEventListener("error", () => fail(new Error("The connection broke before the file was there.")));
    request.addEventListener("load", () => {
      let body;
      try {
        body = JSON.parse(request.responseText);
      } catch {}
      if (request.status >= 200 && request.status < 300) done(body);
      else fail(new Refused(request.status, body));
    });
    const form = new FormData();
    form.append("file", file);
    request.send(form);
  });
}

/** The query of a URL from what is set. */
export function query(fields) {
  const set = Object.entries(fields).filter(([, value]) => value !== undefined && value !== "" && value !== null);
  return set.length ? `?${new URLSearchParams(set)}` : "";
}
