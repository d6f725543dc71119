/** Verbs of download links: a token stands for a path for a while, at every gateway. And of sessions that were signed out. */
import { randomBytes } from "node:crypto";
import { signedOutKey, tokenKey } from "../keys.ts";
import type { Inspector } from "./inspect.ts";

const TOKEN = /^[A-Za-z0-9_-]{43}$/;

/** @returns a new token of 256 random bits. Sent twice it writes the same again. */
export async function keepToken(tokens: Tokens, path: string, ttlMs: number): Promise<string> {
  const token = randomBytes(32).toString("base64url");
  await tokens.ask(() => tokens.redis.set(tokenKey(token), path, "PX", ttlMs));
  return token;
}

/** @returns the path, or undefined when the token is none or has expired */
export async function readToken(tokens: Tokens, token: string): Promise<string | undefined> {
  if (!TOKEN.test(token)) return undefined;
  return (await tokens.ask(() => tokens.redis.get(tokenKey(token)))) ?? undefined;
}

/** Notes that a session of the dashboard is over. @param leftMs  until it would end by itself */
export const signOutSession = (tokens: Tokens, id: string, leftMs: number) =>
  tokens.ask(() => tokens.redis.set(signedOutKey(id), "1", "PX", Math.max(1, Math.ceil(leftMs))));

export const isSignedOut = async (tokens: Tokens, id: string): Promise<boolean> =>
  (await tokens.ask(() => tokens.redis.get(signedOutKey(id)))) !== null;

type Tokens = Pick<Inspector, "redis" | "ask">;
