--@use head
-- page-queue: the next jobs of a queue, newest first: those whose sequence lies below `before`.
--
-- KEYS[1] root
-- ARGV[1] before  int  -1 = from the newest
-- ARGV[2] most    int
--
-- reply flat: id, sequence, ms since when it waits…
-- A list holds sequences in falling order, so the place is found by halving: O(log n) seeks. What is handed back rejoins
-- at the end in any order: there 64 entries on either side are looked at too, so that up to as many find their place.
-- The backlog, and what stands aside, are read priority by priority.
local found = {}
local function add(id, n)
  local f = call('HMGET', K.job .. id, 'h', 'due')
  local h = head_of(f[1])
  n = n or tonumber(h.n)
  if h.state and (before < 0 or n < before) then found[#found + 1] = { id, n, f[2] or h.created } end
end
-- The sequence at an index, or of the next entry that has one.
local function sequence(list, i)
  for j = i, i + 20 do
    local id = call('LINDEX', list, j)
    if not id then break end
    local n = tonumber(head_of(call('HGET', K.job .. id, 'h')).n)
    if n then return n end
  end
  return 0
end
for _, list in ipairs({ K.ready, K.shelf }) do
  local length = call('LLEN', list)
  local low, high = 0, before < 0 and 0 or length
  while low < high do
    local middle = math.floor((low + high) / 2)
    if sequence(list, middle) < before then high = middle else low = middle + 1 end
  end
  local margin = low + most + 128 < length and 0 or 64
  for _, id in ipairs(call('LRANGE', list, math.max(0, low - margin), low + most - 1 + margin)) do add(id) end
end
local sets = { K.backlog }
for _, op in ipairs(call('SMEMBERS', K.asides)) do sets[#sets + 1] = K.aside .. op end
for _, set in ipairs(sets) do
  for band = 0, 9 do
    local zero = band * 8796093022208 -- 2^43, see push
    local top = string.format('(%.0f', zero + (before < 0 and 8796093022208 or before))
    local range = call('ZREVRANGEBYSCORE', set, top, string.format('%.0f', zero), 'WITHSCORES', 'LIMIT', 0, most)
    for i = 1, #range, 2 do add(range[i], range[i + 1] - zero) end
  end
end
table.sort(found, function(a, b) return a[2] > b[2] end)
local out = {}
for i = 1, math.min(most, #found) do
  for _, value in ipairs(found[i]) do out[#out + 1] = value end
end
return out
