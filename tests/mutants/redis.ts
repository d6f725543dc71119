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
    name: "redis: scripts publish outside of the namespace",
    file: "shared/script.ts",
    from: "string.match(ROOT, '^[^:]*:')",
    to: "'lh:'",
    ...by("namespace", "no channel outside"),
  },
];
