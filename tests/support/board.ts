/** The dashboard's app over a real Redis, asked without a socket. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assemble, gatewayApp } from "../../gateway.ts";
import { type Config, readConfig } from "../../shared/config.ts";
import type { JobId } from "../../shared/jobs.ts";
import { dashboard } from "../../shared/routes/index.ts";
import { settle, startStore, type TestStore } from "./store.ts";

export const KEYS = {
  admin: "an-admin-key-of-tests",
  submit: "a-submit-key-of-tests",
  read: "a-read-key-of-the-tests",
};
export const BASE = "http://board.example";
/** What a browser sends with a POST of our own page. */
export const OWN = { origin: BASE };

type Ask = (path: string, init?: RequestInit & { ip?: string }) => Promise<Response>;
export type TestBoard = {
  store: TestStore;
  config: Config;
  ask: Ask;
  /** another dashboard over the same Redis, with another environment */
  other(env: Record<string, string>): { ask: Ask; config: Config };
  post(path: string, headers: Record<string, string>, body?: unknown): Promise<Response>;
  /** the header that a browser which has signed in sends */
  signedIn(key: string): Promise<{ cookie: string }>;
  /** a finished job, a failed one and a waiting one, each with a secret in what it says */
  jobs(): Promise<{ done: JobId; failed: JobId; waiting: JobId }>;
  stop(): Promise<void>;
};

export async function startBoard(): Promise<TestBoard> {
  const dir = mkdtempSync(join(tmpdir(), "longhaul-board-"));
  const store = await startStore();
  writeFileSync(join(dir, "services.json"), JSON.stringify({ operations: { work: { url: "http://127.0.0.1:1" } } }));
  const other = (env: Record<string, string>) => {
    const config = readConfig({ ...env, SERVICES: join(dir, "services.json"), GATEWAY_URL: "http://gateway.example" });
    const gateway = assemble(config, store.connection);
    const app = dashboard(gateway, gatewayApp(gateway));
    const ask: Ask = async (path, { ip = "9.9.9.9", ...init } = {}) =>
      app.fetch(new Request(path.startsWith("http") ? path : BASE + path, init), { ip });
    return { ask, config };
  };
  const { ask, config } = other({ API_KEYS: `${KEYS.admin},${KEYS.submit}:submit,${KEYS.read}:read` });
  const post: TestBoard["post"] = (path, headers, body) =>
    ask(path, {
      method: "POST",
      headers: { ...headers, ...(body === undefined ? {} : { "content-type": "application/json" }) },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
  return {
    ...{ store, config, ask, other, post },
    async signedIn(key) {
      const answer = await post("/signin", OWN, { key });
      return { cookie: (answer.headers.get("set-cookie") ?? "").split(";")[0] as string };
    },
    async jobs() {
      const payload = '{"n":12345678901234567890,"password":"s3cr3t","file":"a.ifc"}';
      const [done, failed] = [await store.submit({ payload }), await store.submit({ payload })];
      const worker = store.worker("w1");
      const [a, b] = await worker.take(2);
      await worker.settle(
        settle(a as never, "finish", { result: '{"ok":true,"api_key":"s3cr3t"}' }),
        settle(b as never, "fail", { error: '{"code":"http_error","message":"no","retryable":false}' }),
      );
      return { done, failed, waiting: await store.submit({ payload }) };
    },
    async stop() {
      await store.stop();
      rmSync(dir, { recursive: true, force: true });
    },
  };
}
