/** Ways to use a Redis that must not be used, and to be kept from one that may. */
import { by, type Mutant } from "./list.ts";

export const REDIS_MUTANTS: Mutant[] = [
  {
    name: "redis: a refused SELECT is an error as any other",
    file: "shared/store/redis.ts",
    from: '    if (error.command?.name !== "select") return;\n',
    to: "    if (error) return;\n",
    ...by("redis-refused", "database that does not exist"),
  },
  {
    name: "redis: a connection in another database is not broken off",
    file: "shared/store/redis.ts",
    from: "    redis.stream.destroy();\n",
    to: "",
    ...by("redis-refused", "never ready"),
  },
  {
    name: "redis: names of a Cluster's nodes are turned into addresses",
    file: "shared/store/open.ts",
    from: "    dnsLookup: (name, done) => done(null, name),\n",
    to: "",
    ...by("redis-tls", "told the name"),
  },
  {
    name: "redis: a node that announces its address is known by that alone",
    file: "shared/store/open.ts",
    from: "if (!wrong || !isIP(host)) return wrong;",
    to: "return wrong;",
    ...by("redis-tls", "announce addresses"),
  },
  {
    name: "redis: whatever certificate a node shows is taken",
    file: "shared/store/open.ts",
    from: "if (!wrong || !isIP(host)) return wrong;",
    to: "return undefined;",
    ...by("redis-tls", "cannot be connected"),
  },
  {
    name: "redis: the errors of a Cluster's nodes are not heard",
    file: "shared/away.ts",
    from: '  redis.on("node error", noteError);\n',
    to: "",
    ...by("redis-tls", "cannot be connected"),
  },
  {
    name: "redis: sentinels that ask for a login get none",
    file: "shared/store/open.ts",
    from: "if (/NOAUTH|WRONGPASS/.test(error.message))",
    to: "if (error === undefined)",
    ...by("redis-sentinel", "only when they ask"),
  },
  {
    name: "redis: the way to sentinels and their master is plain in spite of rediss",
    file: "shared/store/open.ts",
    from: "    ...(options.tls ? { sentinelTLS: options.tls, enableTLSForSentinelMode: true } : {}),\n",
    to: "",
    ...by("redis-sentinel", "over TLS"),
  },
  {
    name: "redis: scripts publish outside of the namespace",
    file: "shared/script.ts",
    from: "string.match(ROOT, '^[^:]*:')",
    to: "'lh:'",
    ...by("namespace", "no channel outside"),
  },
  {
    name: "redis: scripts follow to a node that their slot is still moving to",
    file: "shared/store/open.ts",
    from: 'error.message.startsWith("ASK ") && !single',
    to: "false",
    ...by("redis-reshard", "split over two nodes"),
  },
  {
    name: "redis: settings and services are looked at on connect only",
    file: "shared/store/fit.ts",
    from: "        pauseMs = lookMs;\n",
    to: "        return;\n",
    ...by("redis-looks", "FLUSHALL"),
  },
  {
    name: "redis: commands that were renamed are not looked for",
    file: "shared/store/fit.ts",
    from: "    if (!said) throw error;\n",
    to: "    if (error) throw error;\n",
    ...by("redis-looks", "EVALSHA"),
  },
];
