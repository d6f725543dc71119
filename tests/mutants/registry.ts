/** Ways to call a service wrongly by what its operation says: address, headers, reply, schema. */
import { by, type Mutant } from "./list.ts";

export const REGISTRY_MUTANTS: Mutant[] = [
  {
    name: "registry: a query of the address stands before the path",
    file: "shared/base-url.ts",
    from: "  if (at < 0) return base + path;",
    to: "  if (at < 1e9) return base + path;",
    ...by("services-file"),
  },
  {
    name: "registry: of two equal keys in SERVICES the last counts",
    file: "shared/json-file.ts",
    from: "      if (earlier === undefined) lines",
    to: "      if (true) lines",
    ...by("services-file"),
  },
  {
    name: "headers: a key of the gateway is passed on to the service",
    file: "shared/call-headers.ts",
    from: "    if (!value || apiKeys.some(",
    to: "    if (!value || [].some(",
    ...by("call-headers"),
  },
  {
    name: "headers: a search finds the values that are passed on",
    file: "shared/lua/cards.lua",
    from: "string.gsub(f[8] or '', '\"headers\":.*$', '')",
    to: "(f[8] or '')",
    ...by("call-headers"),
  },
  {
    name: "headers: the dashboard's session cookie is passed on",
    file: "shared/board/relay.ts",
    from: '      headers.delete("cookie");',
    to: '      headers.delete("cookies");',
    ...by("call-headers"),
  },
  {
    name: "headers: the client's come before the operator's",
    file: "shared/told.ts",
    from: "  for (const name in options.headers) headers[name] ??=",
    to: "  for (const name in options.headers) headers[name] =",
    ...by("call-headers"),
  },
  {
    name: "reply: the status of the service's answer is lost",
    file: "shared/store/inspect.ts",
    from: 'Number(head.timing?.split(",")[2] ?? 200)',
    to: "200",
    ...by("reply-result"),
  },
  {
    name: "schema: digits of a checked payload are lost",
    file: "shared/json-schema.ts",
    from: "    copy ??= Array.isArray(value) ? [...value] : { ...value };",
    to: "    copy ??= value as Json;",
    ...by("json-schema"),
  },
];
