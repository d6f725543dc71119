/** Ways to break the index of finished jobs, where those of one turn share an entry. */
import { by, type Mutant } from "./list.ts";

export const ENDED_MUTANTS: Mutant[] = [
  {
    name: "index: an entry of one turn has no nonce in front",
    file: "shared/lua/turn.lua",
    from: "nonce .. i .. ' ' .. table.concat",
    to: "table.concat",
    ...by("ended-index", "has one entry"),
  },
  {
    name: "index: an entry of which some are struck loses its place",
    file: "shared/lua/lib/entry.lua",
    from: "string.match(entry, '^%S+') .. ' '",
    to: "string.reverse(string.match(entry, '^%S+')) .. ' '",
    ...by("ended-index", "passes over none"),
  },
  {
    name: "index: bulk does not know the entry again of which it struck some",
    file: "shared/lua/bulk-step.lua",
    from: "became[entries[i].name] or entries[i].name",
    to: "entries[i].name",
    ...by("ended-index", "passes over none"),
  },
  {
    name: "index: an id that was used before is counted twice, alone",
    file: "shared/lua/turn.lua",
    from: "unpack(entries)) == 0 then",
    to: "unpack(entries)) == 2 then",
    ...by("ended-index", "used before"),
  },
  {
    name: "index: an id that was used before is counted twice, with options",
    file: "shared/lua/lib/close.lua",
    from: "    if again > 0 and state == 'finished' then",
    to: "    if again > 1 and state == 'finished' then",
    ...by("ended-index", "used before"),
  },
  {
    name: "index: what is struck stays counted",
    file: "shared/lua/lib/entry.lua",
    from: "  if state == 'finished' and n > 0 then call('HINCRBY', K.counts, 'struck', n) end\n",
    to: "",
    ...by("ended-index", "erase strikes"),
  },
  {
    name: "index: an erased job stays in the entry that it shares",
    file: "shared/lua/erase.lua",
    from: "strike_erased()\n",
    to: "",
    ...by("ended-index", "erase strikes"),
  },
  {
    name: "index: the sweep's second walk leaves a gap behind the first",
    file: "shared/clocks/sweep.ts",
    from: "(offsets.get(place) ?? 0) - went, old.stayed",
    to: "(offsets.get(place) ?? 0) - went, SLICE",
    ...by("ended-index", "far from the old end"),
  },
  {
    name: "index: the sweep ends at the first slice that has expired whole",
    file: "shared/clocks/sweep.ts",
    from: "old.gone >= SLICE && rounds",
    to: "old.gone === SLICE && rounds",
    ...by("ended-index", "one sweep comes through"),
  },
];
