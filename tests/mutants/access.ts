/** Ways to let somebody in: pages of other sites, names that nobody configured, keys with a mistyped scope. */
import { by, type Mutant } from "./list.ts";

const site = { file: "shared/cross-site.ts", ...by("cross-site") };

export const ACCESS_MUTANTS: Mutant[] = [
  {
    name: "access: an allowed address is not asked which site its request comes from",
    file: "shared/auth.ts",
    from: "        checkSite(request, proxied",
    to: "        void (request, proxied",
    ...by("cross-site"),
  },
  {
    name: "access: on an open gateway a proxy's word for whom it asks does not count",
    file: "shared/auth.ts",
    from: "if (!isTold(request.headers, socketIp, ip, isLoopback)) {",
    to: "if (false) {",
    ...by("auth"),
  },
  {
    name: "access: an address in the range is let in for whomever its proxy asks",
    file: "shared/auth.ts",
    from: "if (isInside && isTold(request.headers, socketIp, ip, allowed)) {",
    to: "if (isInside) {",
    ...by("auth"),
  },
  {
    name: "access: a prefix that a header names is taken off the path",
    file: "shared/base-path.ts",
    from: "const taken = basePath;",
    to: "const taken = base;",
    ...by("base-path"),
  },
  {
    name: "access: keys are compared for all who waited with their bodies",
    file: "shared/board/gate.ts",
    from: "    guesses.check(ip); // many may have waited with their bodies\n",
    to: "",
    ...by("dashboard-gate"),
  },
  {
    name: "access: a copy of a cookie is good after sign-out",
    file: "shared/board/gate.ts",
    from: "if (!over) return caller;",
    to: "return caller;",
    ...by("dashboard-gate"),
  },
  {
    name: "access: an error shows the headers that it quotes",
    file: "shared/call.ts",
    from: "(secrets ? hideSent(text, secrets) : text)",
    to: "text",
    ...by("call-headers"),
  },
  {
    name: "access: Sec-Fetch-Site is not looked at",
    from: 'if (site !== null && site !== "same-origin"',
    to: 'if (false && site !== "same-origin"',
    ...site,
  },
  {
    name: "access: same-site counts as the same origin",
    from: 'site !== "same-origin" && site !== "none"',
    to: '!site.startsWith("same-") && site !== "none"',
    ...site,
  },
  {
    name: "access: a foreign Origin passes",
    from: "if (!from || !(isOwn(from) || hosts.includes(from.host)))",
    to: "if (!from)",
    ...site,
  },
  {
    name: "access: a rebound name passes",
    from: "return (name) => isLoopback(name) || isIP(name) !== 0 || known.has(name);",
    to: "return (name) => name !== '' || known.has(name);",
    ...site,
  },
  {
    name: "access: the host of the request line is not looked at",
    from: "host ? [request.url, ",
    to: "host ? [",
    ...site,
  },
  {
    name: "access: after one known host each host is known",
    from: "if (last && host === last.host && request",
    to: "if (last && request",
    ...site,
  },
  {
    name: "access: X-Forwarded-Host of a trusted proxy is not looked at",
    from: "      if (!isKnown(hostName(item))) throw",
    to: "      if (item === '') throw",
    ...site,
  },
  {
    name: "keys: a mistyped scope is an administrator's key",
    file: "shared/api-keys.ts",
    from: "if (cut > 0 && !scope && ",
    to: "if (false && ",
    ...by("api-keys"),
  },
  {
    name: "keys: the old gateway's key is split at commas and colons",
    file: "shared/config.ts",
    from: "  IFC_PIPELINE_API_KEY: oneKey,",
    to: "  IFC_PIPELINE_API_KEY: apiKeys,",
    ...by("api-keys"),
  },
  {
    name: "keys: without keys any address is listened on when a range is set",
    file: "shared/config.ts",
    from: "  const host = HOST.parse(given.HOST);",
    to: "  if (given.ALLOWED_IP_RANGES) return [];\n  const host = HOST.parse(given.HOST);",
    ...by("config", "loopback only"),
  },
];
