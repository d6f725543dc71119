/**
 * Callbacks: the record of an ended job, POSTed to the client's URL and signed as Standard Webhooks.
 * Signing is three lines of node:crypto: the library's own HMAC is JavaScript and takes ten times as long over a large
 * result, in the process that settles jobs. Tests verify with the library.
 * @see https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
 */
import { createHmac } from "node:crypto";
import { parsedRetryAfter } from "./answer.ts";
import { Fault } from "./faults.ts";
import { type Allowance, checkName, checkTarget, GuardError, guardedFetch, receiverOf } from "./ssrf.ts";
import { VERSION } from "./version.ts";

/** `secrets`: the first is the newest; each signs, so that a receiver may change from one to the other at its leisure. */
export type CallbackSettings = {
  webhookSecrets: Uint8Array[];
  callbackAllow: Allowance;
  callbackTimeoutMs: number;
  callbackRetryMs: number;
};

const MAX_URL = 2_048;
/** Bytes of the receiver's answer that are read; nothing of it is kept or shown: it may come from an inner network. */
const MAX_ANSWER = 65_536;

/** ms that a submit waits for the name server; mostly it takes a few. */
const NAME_MS = 1_000;

const refuse = (message: string, path = "callback_url") =>
  new Fault("invalid", `${path}: ${message}.`, { errors: [{ path, message }] });

/**
 * Judges the names of callback_urls of checked jobs: one that has private addresses only would be refused when it is called, and
 * nobody would hear of it. Each host is asked for once.
 * @param pathOf  how an error names the field of a job, by its place
 * @throws Fault invalid, of the first job whose callback cannot be sent
 */
export async function checkCallbackNames(
  jobs: { options?: { callback?: string } | undefined }[],
  settings: Pick<CallbackSettings, "callbackAllow">,
  pathOf: (place: number) => string = () => "callback_url",
  resolve?: (host: string) => Promise<string[]>,
): Promise<void> {
  const hosts = new Map<string, { url: URL; place: number }>();
  jobs.forEach(({ options }, place) => {
    if (!options?.callback) return;
    const url = new URL(options.callback);
    if (!hosts.has(url.host)) hosts.set(url.host, { url, place });
  });
  const judged = [...hosts.values()].map(async ({ url, place }) => {
    try {
      await checkName(url, settings.callbackAllow, NAME_MS, resolve);
    } catch (error) {
      if (!(error instanceof GuardError)) throw error;
      throw refuse(error.message, pathOf(place));
    }
  });
  await Promise.all(judged);
}

/** Judges a callback_url at submit, as far as that can be done without asking the name server. @throws Fault invalid */
export function checkCallback(url: string, settings: CallbackSettings): void {
  if (settings.webhookSecrets.length === 0) {
    throw refuse("callbacks are off here: the operator has set no WEBHOOK_SECRET to sign them with");
  }
  if (url.length > MAX_URL) throw refuse(`may have ${MAX_URL} characters at most`);
  try {
    receiverOf(url);
    checkTarget(url, settings.callbackAllow);
  } catch (error) {
    if (!(error instanceof GuardError)) throw error;
    throw refuse(error.message);
  }
}

/**
 * The headers that prove where a body comes from; without a secret they only name it.
 * @param id the same for every try of the same end
 */
export function signatureOf(secrets: Uint8Array[], id: string, at: number, body: string): Record<string, string> {
  const timestamp = String(Math.floor(at / 1_000));
  const sign = (secret: Uint8Array) =>
    `v1,${createHmac("sha256", secret).update(`${id}.${timestamp}.${body}`).digest("base64")}`;
  return {
    "webhook-id": id,
    "webhook-timestamp": timestamp,
    ...(secrets.length > 0 ? { "webhook-signature": secrets.map(sign).join(" ") } : {}),
  };
}

/** How a try went. `final`: trying again is of no use. */
export type Delivery = {
  ok: boolean;
  final: boolean;
  status?: number;
  error?: string;
  ms: number;
  retryAfterMs?: number;
};

/**
 * Sends one callback. Never throws.
 * @param now  ms since 1970, by Redis: receivers refuse a signature that is minutes off, so a machine's own clock must not make it
 */
export async function sendCallback(
  url: string,
  id: string,
  body: string,
  now: number,
  settings: CallbackSettings,
): Promise<Delivery> {
  const began = performance.now();
  const ms = () => Math.round(performance.now() - began);
  try {
    const answer = await guardedFetch(url, {
      method: "POST",
      headers: {
        "content-type": "application/json",
        "user-agent": `longhaul/${VERSION}`,
        ...signatureOf(settings.webhookSecrets, id, now, body),
      },
      body,
      allow: settings.callbackAllow,
      maxBytes: MAX_ANSWER,
      timeoutMs: settings.callbackTimeoutMs,
      silenceMs: settings.callbackTimeoutMs,
    });
    answer.discard();
    const { status } = answer;
    if (status >= 200 && status < 300) return { ok: true, final: true, status, ms: ms() };
    const askedMs = parsedRetryAfter(answer.headers.get("retry-after"), answer.headers.get("date"));
    const retryAfterMs = askedMs === undefined ? undefined : Math.min(askedMs, MAX_RETRY_AFTER_MS);
    return {
      ok: false,
      final: status === 410, // Gone: the receiver wants no more of it
      status,
      error: status >= 300 && status < 400 ? "answered with a redirect, which is not followed" : `answered ${status}`,
      ms: ms(),
      ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    };
  } catch (error) {
    const { kind, message } = error instanceof GuardError ? error : { kind: "unreachable", message: String(error) };
    return { ok: false, final: kind === "refused", error: message.slice(0, 300), ms: ms() };
  }
}

/** A receiver that asks for more would use up CALLBACK_RETRY_FOR with one wait. */
const MAX_RETRY_AFTER_MS = 3_600_000;
const FIRST_MS = 5_000;
const MOST_MS = 4 * 3_600_000;
/** ms until the next try: 5 s, 20 s, 80 s, 5 min … at most 4 h, give or take a tenth. @param tries made so far */
export const callbackBackoffMs = (tries: number) =>
  Math.min(FIRST_MS * 4 ** (tries - 1), MOST_MS) * (0.9 + Math.random() / 5);
