/**
 * What strangers send, and what they hear: a deployment of its own (Redis, three gateways, a worker, microservices), attacked
 * over real sockets.
 *
 *   bun tests/slow/hostile.ts [--write]
 *
 * Prints each input with its answer, and those that differ from what is expected. `--write` puts the table into
 * docs/hostile.md. Exit code 1 when an answer differs, a process ended, a log has something unforeseen, an answer tells of
 * our insides, or a job was lost or ran twice.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { groups as access } from "../hostile/access.ts";
import { groups as bodies } from "../hostile/bodies.ts";
import { groups as files } from "../hostile/files.ts";
import { groups as load } from "../hostile/load.ts";
import { groups as wire } from "../hostile/wire.ts";
import { KEYS, startWorld } from "../hostile/world.ts";
import { until } from "../support/stack.ts";

const world = await startWorld();
const faults: string[] = [];
const sections: string[] = [];
let cases = 0;

for (const { title, cases: rows } of [...wire, ...bodies, ...files, ...access, ...load]) {
  console.log(`\n${title}`);
  const lines = [`## ${title}`, "", "| input | answer |", "|---|---|"];
  for (const [input, answer, run] of rows) {
    cases++;
    const heard = await run(world).catch((error) => `threw ${error}`);
    console.log(`  ${input} → ${heard}`);
    if (heard !== answer) faults.push(`${title}: ${input} → ${heard}, not ${answer}`);
    const cell = (text: string) => text.replaceAll("|", "\\|");
    lines.push(`| ${cell(input)} | ${cell(heard.replace(/\d{30,}/, "…")).replace(/[<{].*[>}]/, "`$&`")} |`);
  }
  sections.push(lines.join("\n"));
}

// ---- what must hold whatever was sent

for (const [i, gateway] of world.gateways.entries()) {
  if (gateway.exitCode !== null) faults.push(`gateway ${i} ended with ${gateway.exitCode}`);
  const odd = /unforeseen.*|panic.*|.*Error: .*/.exec(gateway.output())?.[0];
  if (odd) faults.push(`gateway ${i} logged: ${odd}`);
  for (const key of Object.values(KEYS)) if (gateway.output().includes(key)) faults.push(`gateway ${i} logged a key`);
}
const INSIDE =
  /node_modules\/.*\.[jt]s\b|\.ts:\d|\bat \w+ \(|longhaul-stack-|root:x:0|redis:\/\/|hostile-(admin|submit|read)-key/;
for (const text of world.heard)
  if (INSIDE.test(text)) faults.push(`an answer tells: ${INSIDE.exec(text)?.[0]} in ${text.slice(0, 200)}`);

let lost = 0;
let twice = 0;
let ended = 0;
let waits = 0;
for (const id of world.accepted) {
  const record = async () => JSON.parse((await world.whole("GET", `/jobs/${id}`)).text);
  let seen = await record();
  if (seen.status === "queued" || seen.status === "started") {
    if (id.startsWith("away_")) {
      waits++; // nobody is there
      continue;
    }
    await until(async () => {
      seen = await record();
      return !/queued|started/.test(seen.status);
    });
  }
  if (seen.code === "unknown_job") lost++;
  if (seen.status === "scheduled") waits++;
  if (seen.status === "finished" || seen.status === "failed") ended++;
  if (id.startsWith("work_") && world.stack.service.byJob(id).length > (seen.attempt ?? 1)) twice++;
}
const sum = `${world.accepted.size} jobs accepted, ${ended} ended, ${waits} wait as they should, ${lost} lost, ${twice} ran twice`;
if (lost + twice > 0 || ended + waits !== world.accepted.size) faults.push(sum);
await world.stop();

console.log(`\n${cases} lines; ${sum}`);
for (const fault of faults) console.log(`DIFFERS  ${fault}`);
if (process.argv.includes("--write") && faults.length === 0) {
  const text = `# Hostile input

What a stranger may send, and what comes back. Each line was sent over real sockets to gateways, a worker, a dashboard and
microservices of the test's own: \`bun tests/slow/hostile.ts\`. Where a line names several inputs, all were sent and got the same
answer. \`422 invalid\` is the status and the problem's \`code\`; *closed*: the runtime refuses it before a route sees it, without a
body. The limits are the defaults, but for uploads (1 MiB), results (4 MiB) and those that a line names.

${cases} lines; ${sum}. No process ended, no log holds anything unforeseen, no answer shows a path of the
machine, a stack or a key. Markup in payloads, results, errors, tags and names is tried in a browser: tests/dashboard-safe.test.ts.

What has no limit: a client that sends its headers or a JSON body a byte at a time keeps its connection for as long as it likes (the
sender of a file is given up after 120 s of silence). That costs a socket each. Where strangers reach the gateway, a proxy in front is
the cure (nginx: \`client_header_timeout\`, \`client_body_timeout\`). Of a key that stands twice in a JSON object the last one counts.

${sections.join("\n\n")}
`;
  writeFileSync(join(import.meta.dir, "../../docs/hostile.md"), text);
  console.log("written: docs/hostile.md");
}
process.exit(faults.length === 0 ? 0 : 1);
