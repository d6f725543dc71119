--@use base
-- entry: what the indexes of ended jobs hold: an id; or, of those that finished in one turn, "<name> <id> <id>…", one entry for 32
-- of them, as one of its own costs each as much as its life (performance.md). By its name an entry keeps its place among those of
-- the same ms when some are struck. counts.struck is how many have left ended:finished, which nobody else could count (counts.lua).
local function ids_of(entry)
  if not find(entry, ' ', 1, true) then return { entry } end
  local ids = {}
  for id in string.gmatch(entry, ' (%S+)') do ids[#ids + 1] = id end
  return ids
end

-- Strikes those of an entry's ids that are keys of `gone`.
-- Returns how many they are, and the entry as it is then, '' = nothing is left. The caller counts them (count_struck).
local function strike_entry(key, entry, score, gone)
  local left, n = {}, 0
  for _, id in ipairs(ids_of(entry)) do
    if gone[id] then n = n + 1 else left[#left + 1] = id end
  end
  if n == 0 then return 0, entry end
  call('ZREM', key, entry)
  if #left == 0 then return n, '' end
  local now_it_is = string.match(entry, '^%S+') .. ' ' .. table.concat(left, ' ')
  call('ZADD', key, score, now_it_is)
  return n, now_it_is
end

local function count_struck(state, n)
  if state == 'finished' and n > 0 then call('HINCRBY', K.counts, 'struck', n) end
end
