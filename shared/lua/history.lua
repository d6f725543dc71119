--@use base
-- history: what a service did in some minutes or hours, for charts and percentiles.
--
-- KEYS[1] root
-- ARGV[1] kind   text  "m" minutes, "h" hours
-- ARGV[2] first  int   epoch minute or hour
-- ARGV[3] last   int   at most 59 later: a longer list of slices takes several calls, so that none holds Redis
--
-- reply flat: slice, its fields (flat HGETALL) … only slices in which something happened
local open = call('HGETALL', K.tally) -- of the minute that is open, and not yet part of any slice
local at = nil
for i = 1, #open, 2 do
  if open[i] == 'minute' then at = kind == 'm' and tonumber(open[i + 1]) or math.floor(open[i + 1] / 60) end
end
local function with_open(fields)
  local sums = {}
  for i = 1, #fields, 2 do sums[fields[i]] = fields[i + 1] end
  for i = 1, #open, 2 do
    if open[i] ~= 'minute' then sums[open[i]] = string.format('%d', (sums[open[i]] or 0) + open[i + 1]) end
  end
  local flat = {}
  for field, n in pairs(sums) do flat[#flat + 1], flat[#flat + 2] = field, n end
  return flat
end
local out = {}
for slice = first, math.min(last, first + 59) do
  local fields = call('HGETALL', K.stats .. kind .. slice)
  if slice == at then fields = with_open(fields) end
  if #fields > 0 then
    out[#out + 1] = slice
    out[#out + 1] = fields
  end
end
return out
