--@use base
-- entry: what the indexes of ended jobs hold: an id; or, for jobs that finished in one turn, "<nonce> <id> <id>…", one entry for
-- all of them, which costs each a tenth of one of its own. The nonce keeps its place among those of the same ms when some are struck.
-- counts.struck is how many have left ended:finished: nobody could count what is in it (counts.lua).
local function ids_of(entry)
  if not find(entry, ' ', 1, true) then return { entry } end
  local ids = {}
  for id in string.gmatch(entry, ' (%S+)') do ids[#ids + 1] = id end
  return ids
end

-- Strikes those of an entry's ids that are keys of `gone`. Returns how many they are, and the entry as it is then, if anything is left.
local function strike_entry(state, entry, score, gone)
  local key, left, n = K.ended .. state, {}, 0
  for _, id in ipairs(ids_of(entry)) do
    if gone[id] then n = n + 1 else left[#left + 1] = id end
  end
  if n == 0 then return 0, entry end
  call('ZREM', key, entry)
  if state == 'finished' then call('HINCRBY', K.counts, 'struck', n) end
  if #left == 0 then return n end
  local rest_of_it = string.match(entry, '^%S+') .. ' ' .. table.concat(left, ' ')
  call('ZADD', key, score, rest_of_it)
  return n, rest_of_it
end
