/** A gateway's app over a real Redis, asked without a socket. */
import { assemble, gatewayApp, submits } from "../../gateway.ts";
import { type Gateway, served } from "../../shared/app.ts";
import { readConfig } from "../../shared/config.ts";
import type { JobId, ServiceName } from "../../shared/jobs.ts";
import { keysOf } from "../../shared/keys.ts";
import type { Connection } from "../../shared/script.ts";
import { connect, ready } from "../../shared/store/redis.ts";
import { TestWorker } from "./store.ts";

const SERVICES = ["IFCCONVERT", "IFCCSV", "IFCCLASH", "IFCTESTER", "IFCDIFF", "IFC2JSON", "IFC5D"];
/** All built-in services, deployed at an address where nobody listens. */
export const DEPLOYED = Object.fromEntries(SERVICES.map((name) => [`${name}_URL`, "http://127.0.0.1:9"]));

export type TestGateway = {
  gateway: Gateway;
  redis: Connection;
  /** @param from  the socket's address */
  ask(method: string, path: string, init?: RequestInit, from?: string): Promise<Response>;
  /** a POST of JSON; a text goes as it is */
  post(path: string, body?: unknown, headers?: Record<string, string>): Promise<Response>;
  /** submits and returns the id. @throws unless 202 */
  submit(path: string, body: unknown, headers?: Record<string, string>): Promise<JobId>;
  // biome-ignore lint/suspicious/noExplicitAny: answers of many shapes, read field by field in tests
  json(path: string): Promise<any>;
  worker(name: string): TestWorker;
  close(): void;
};

export async function startGatewayApp(url: string, env: Record<string, string> = {}): Promise<TestGateway> {
  const config = readConfig({ ...DEPLOYED, REDIS_URL: url, ...env });
  const redis = connect(url, "request", "test-gateway");
  const work = connect(url, "work", "test-worker");
  await ready(redis, 5_000);
  const ending = new AbortController();
  const gateway = assemble(config, redis, ending.signal);
  const app = gatewayApp(gateway);
  const answer = served(app, submits(gateway, app));
  const self: TestGateway = {
    gateway,
    redis,
    ask: async (method, path, init = {}, from = "127.0.0.1") =>
      answer(new Request(`http://localhost${path}`, { method, ...init }), { ip: from }),
    post: (path, body, headers = {}) =>
      self.ask("POST", path, {
        headers: { "content-type": "application/json", ...headers },
        ...(body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) }),
      }),
    async submit(path, body, headers) {
      const response = await self.post(path, body, headers);
      const answer = (await response.json()) as { job_id: JobId };
      if (response.status !== 202) throw new Error(`${response.status} ${JSON.stringify(answer)}`);
      return answer.job_id;
    },
    json: async (path) => (await self.ask("GET", path)).json(),
    worker: (name) => new TestWorker(work, name as never),
    close() {
      ending.abort();
      redis.disconnect();
      work.disconnect();
    },
  };
  return self;
}

/** The payload as it lies in Redis. */
export const stored = async (redis: Connection, id: JobId) =>
  (await redis.hget(keysOf(id.slice(0, id.indexOf("_")) as ServiceName).job(id), "p")) ?? "";
