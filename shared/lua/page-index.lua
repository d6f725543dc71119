--@use above
--@use entry
-- page-index: the next entries of a sorted index, newest first.
--
-- KEYS[1] root
-- ARGV[1] state  text  scheduled (by due time) | finished | failed | canceled (by end time)
-- ARGV[2] at     int   ms; the page goes on below (at, id); -1 = from the newest
-- ARGV[3] id     text
-- ARGV[4] most   int
--
-- reply flat: id, score…
-- O(log n): among entries of one millisecond the place is found by halving. Not so of finished jobs, of which an entry may hold many:
-- those of one millisecond come together, in no order, few as they are, and the page may be longer by them.
local key = state == 'scheduled' and K.scheduled or K.ended .. state
local low = at >= 0 and call('ZCOUNT', key, '(' .. at, '+inf') or 0
if state ~= 'finished' then
  local high = at >= 0 and call('ZCOUNT', key, at, '+inf') or 0
  while low < high do
    local middle = math.floor((low + high) / 2)
    if above(id, call('ZREVRANGE', key, middle, middle)[1]) then high = middle else low = middle + 1 end
  end
  return call('ZREVRANGE', key, low, low + most - 1, 'WITHSCORES')
end
local page, ms, slice = {}, nil, nil
repeat
  slice = call('ZREVRANGE', key, low, low + 7, 'WITHSCORES')
  for i = 1, #slice, 2 do
    if slice[i + 1] ~= ms and #page >= 2 * most then return page end
    ms = slice[i + 1]
    for _, one in ipairs(ids_of(slice[i])) do
      if tonumber(ms) ~= at or above(id, one) then page[#page + 1], page[#page + 2] = one, ms end
    end
  end
  low = low + 8
until #slice < 16
return page
