--@use base
--@use above
-- page-index: the next entries of a sorted index, newest first.
--
-- KEYS[1] root
-- ARGV[1] state  text  scheduled (by due time) | finished | failed | canceled (by end time)
-- ARGV[2] at     int   ms; the page goes on below (at, id); -1 = from the newest
-- ARGV[3] id     text
-- ARGV[4] most   int
--
-- reply flat: id, score…
-- O(log n): among entries of one millisecond the place is found by halving.
local key = state == 'scheduled' and K.scheduled or K.ended .. state
local low = 0
if at >= 0 then
  low = call('ZCOUNT', key, '(' .. at, '+inf')
  local high = call('ZCOUNT', key, at, '+inf')
  while low < high do
    local middle = math.floor((low + high) / 2)
    if above(id, call('ZREVRANGE', key, middle, middle)[1]) then high = middle else low = middle + 1 end
  end
end
return call('ZREVRANGE', key, low, low + most - 1, 'WITHSCORES')
