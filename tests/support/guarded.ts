/** Calls guardedFetch in a process of its own, so that a test can run it under Deno too. argv: JSON of what to do. */
import process from "node:process";
import { allowance, GuardError, guardedFetch } from "../../shared/ssrf.ts";

const { url, allow, names } = JSON.parse(process.argv[2] ?? "{}") as {
  url: string;
  allow: string[];
  names: Record<string, string[]>;
};
try {
  const answer = await guardedFetch(url, {
    allow: allowance(allow, "ALLOW"),
    maxBytes: 1_000_000,
    timeoutMs: 5_000,
    maxRedirects: 3,
    resolve: async (host) => names[host] ?? [],
  });
  let text = "";
  for await (const piece of answer.body) text += new TextDecoder().decode(piece);
  console.log(JSON.stringify({ status: answer.status, address: answer.address, text }));
} catch (error) {
  console.log(JSON.stringify({ kind: error instanceof GuardError ? error.kind : "other", message: String(error) }));
}
process.exit(0);
