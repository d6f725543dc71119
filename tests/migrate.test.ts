/** Coming from the FastAPI + RQ gateway: what compose.pipeline.yaml and docs/migrate.md have to say for n8n's nodes. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { readConfig } from "../shared/config.ts";

const read = (path: string) => readFileSync(new URL(`../${path}`, import.meta.url), "utf8");
/** As compose fills in variables: `${NAME:-fallback}`, one level deep. */
const filled = (text: string, env: Record<string, string>) =>
  text.replace(/\$\{(\w+)(?::[-?]([^}]*))?\}/g, (_, name: string, fallback = "") => env[name] || fallback);
type Service = {
  environment: Record<string, string>;
  ports: string[];
  networks: Record<string, { aliases: string[] }>;
};
const gatewayOf = (path: string, env: Record<string, string>) =>
  (Bun.YAML.parse(filled(read(path), env)) as { services: Record<string, Service> }).services.gateway as Service;

test("the documented .env of the cut-over makes the gateway http://api-gateway, port 80", () => {
  const env = { PORT: "8000", GATEWAY_PORT: "80", GATEWAY_ALIAS: "api-gateway", ALLOWED_HOSTS: "queue.example" };
  const base = gatewayOf("compose.yaml", env);
  expect(base.ports[0]).toBe("8000:80");
  const pipeline = gatewayOf("compose.pipeline.yaml", env);
  expect([String(base.environment.PORT), pipeline.environment.GATEWAY_URL]).toEqual(["80", "http://gateway:80"]);
  expect(pipeline.networks.pipeline?.aliases).toEqual(["api-gateway"]);
  const { allowedHosts } = readConfig({ ALLOWED_HOSTS: pipeline.environment.ALLOWED_HOSTS });
  expect(allowedHosts).toEqual(["api-gateway", "longhaul", "queue.example"]);
  for (const line of ["GATEWAY_PORT=80", "GATEWAY_ALIAS=api-gateway"]) expect(read("docs/migrate.md")).toContain(line);
});

test("before the cut-over the gateway does not take the old one's name", () => {
  expect(gatewayOf("compose.yaml", {}).ports[0]).toBe("8000:8000");
  expect(gatewayOf("compose.pipeline.yaml", {}).networks.pipeline?.aliases).toEqual(["longhaul"]);
});

test("migrate.md names each setting without which an old client or page is refused", () => {
  const text = read("docs/migrate.md");
  for (const name of ["DOWNLOAD_ALLOW", "CORS_ORIGINS", "ALLOWED_HOSTS", "CALLBACK_ALLOW", "http://api-gateway"]) {
    expect([name, text.includes(name)]).toEqual([name, true]);
  }
  expect(text).toContain("A wrong key from an allowed address counts as none");
});
