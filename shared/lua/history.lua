--@flags allow-oom
--@use fold
-- history: what a service did in some minutes or hours, for charts and percentiles.
--
-- KEYS[1] root
-- ARGV[1] kind   text  "m" minutes, "h" hours
-- ARGV[2] first  int   epoch minute or hour
-- ARGV[3] last   int   at most 59 later: a longer list of slices takes several calls, so that none holds Redis
--
-- reply flat: slice, its fields (flat HGETALL) … only slices in which something happened
fold()
local out = {}
for slice = first, math.min(last, first + 59) do
  local fields = call('HGETALL', K.stats .. kind .. slice)
  if #fields > 0 then
    out[#out + 1] = slice
    out[#out + 1] = fields
  end
end
return out
