/** What the tests of files share: a gateway with a reader's and a submitter's key, and the ways to ask it. */
import { afterAll, beforeAll } from "bun:test";
import { existsSync, mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { type Stack, startStack, until } from "./stack.ts";

export const READ = "reader-key-1";
export const SUBMIT = "submitter-key-1";
/** bytes; MAX_UPLOAD_BYTES of these gateways */
export const LIMIT = 4 * 1024 * 1024;
export const RUNTIMES = ["bun", "deno"];

/** One part of a form whose boundary is `b`, by hand. */
export const part = (disposition: string, content = "ISO-10303-21;") =>
  `--b\r\nContent-Disposition: form-data; ${disposition}\r\nContent-Type: application/octet-stream\r\n\r\n${content}\r\n`;

/**
 * A gateway for the tests of one `describe`: it starts before them and ends after them.
 * @param env  asked when it starts; `stack` and `uploads` are there from then on
 */
export function gatewayForFiles(runtime: string, env: () => Record<string, string> = () => ({})) {
  let stack: Stack | undefined;
  beforeAll(async () => {
    stack = await startStack({
      workers: 0,
      runtime,
      env: { API_KEYS: `${READ}:read,${SUBMIT}:submit`, MAX_UPLOAD_BYTES: "4MiB", ...env() },
    });
    mkdirSync(uploads(), { recursive: true });
  }, 60_000);
  afterAll(() => stack?.stop());

  const running = () => stack as Stack;
  const uploads = () => join(running().dir, "uploads");
  const call = (path: string, init: RequestInit = {}, key = SUBMIT, base = running().url) => {
    const headers = new Headers(init.headers);
    if (key) headers.set("x-api-key", key);
    return fetch(base + path, { ...init, headers });
  };
  const json = (path: string, body: unknown, key = SUBMIT) =>
    call(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) }, key);
  const send = (name: string, content: string | Uint8Array, kind = "ifc", key = SUBMIT) => {
    const body = new FormData();
    body.append("file", new File([content as BlobPart], name));
    return call(`/upload/${kind}`, { method: "POST", body }, key);
  };
  /** A form by hand, for what no client would send. */
  const raw = (parts: string, path = "/upload/ifc", type = "multipart/form-data; boundary=b") =>
    call(path, { method: "POST", headers: { "content-type": type }, body: parts });
  // biome-ignore lint/suspicious/noExplicitAny: answers of many shapes, read field by field
  const answer = async (response: Response): Promise<any> => ({ status: response.status, ...(await response.json()) });
  const link = async (path: string, key = READ) =>
    answer(await json("/create_download_link", { file_path: path }, key));
  /** What lies in /uploads, hidden files too. */
  const lying = () => (existsSync(uploads()) ? readdirSync(uploads()).sort() : []);
  /** Nothing of an unfinished file may stay. */
  const nothingLeft = () =>
    until(
      () => !lying().some((name) => name.endsWith(".part")),
      5_000,
      () => lying().join(", "),
    );
  return {
    get stack() {
      return running();
    },
    /** where /uploads lies on this machine */
    get uploads() {
      return uploads();
    },
    /** of the gateway, for a socket that a test may end in the middle */
    port: () => Number(new URL(running().url).port),
    ...{ call, json, send, raw, answer, link, lying, nothingLeft },
  };
}
