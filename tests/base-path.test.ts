/** Which part of a path is taken off, and what stands before links. */
import { expect, test } from "bun:test";
import { baseOf, basePaths } from "../shared/base-path.ts";

/** The path that routes see, and the base of links. */
function seen(basePath: string, path: string, prefix?: string) {
  const find = basePaths({ basePath, trustedProxies: ["10.0.0.1"] }) as NonNullable<ReturnType<typeof basePaths>>;
  const headers: Record<string, string> = prefix ? { "x-forwarded-prefix": prefix } : {};
  const found = find(new Request(`http://h${path}`, { headers }), "10.0.0.1");
  if (found instanceof Response) return [found.status, found.headers.get("location")];
  return [new URL(found.url).pathname, baseOf(found)];
}

test("BASE_PATH is taken off a path, a prefix that a header names never is", () => {
  expect(seen("", "/x/queues/work/pause", "/x")).toEqual(["/x/queues/work/pause", "/x"]);
  expect(seen("", "/jobs", "/x")).toEqual(["/jobs", "/x"]);
  expect(seen("/queue", "/queue/jobs")).toEqual(["/jobs", "/queue"]);
  expect(seen("/queue", "/queue/jobs", "/queue")).toEqual(["/jobs", "/queue"]);
  expect(seen("/queue", "/queue/jobs", "/tools")).toEqual(["/jobs", "/tools"]);
  expect(seen("/queue", "/tools/jobs", "/tools")).toEqual(["/tools/jobs", "/tools"]);
  expect(seen("/queue", "/queues/work")).toEqual(["/queues/work", "/queue"]);
  expect(seen("/queue", "/queue")).toEqual([308, "/queue/"]);
  expect(seen("", "/x", "/x")).toEqual(["/x", "/x"]);
});
