--@use base
-- tally: counts within the script, written once at its end: two commands a script, however much it did. They go to the tally
-- of the minute that is open; with the first count of another minute it becomes part of the totals, the minute and
-- the hour. So whoever reads those adds the open one (counts.lua, history.lua).
local tally = {}
local function count(field, n) tally[field] = (tally[field] or 0) + (n or 1) end

-- Half-octave buckets: b covers 2^(b/2) ms up to 2^((b+1)/2) ms; beside them the sum, for means.
local durations = { r = {}, w = {} } -- one call sees the same few durations over and over
local function observe(kind, ms) durations[kind][ms] = (durations[kind][ms] or 0) + 1 end

-- The tally of the minute that is open, into the totals and its minute and hour; sums, so that a clock set back does no harm.
local function fold(minute)
  local fields = call('HGETALL', K.tally)
  local slices = { K.counts, K.stats .. 'm' .. minute, K.stats .. 'h' .. math.floor(minute / 60) }
  for i = 1, #fields, 2 do
    if fields[i] ~= 'minute' then
      for _, slice in ipairs(slices) do call('HINCRBY', slice, fields[i], fields[i + 1]) end
    end
  end
  call('PEXPIRE', slices[2], 90000000) -- 25 h
  call('PEXPIRE', slices[3], 691200000) -- 8 days
  call('DEL', K.tally)
end

local function write_tally()
  for kind, times in pairs(durations) do
    for ms, n in pairs(times) do
      count(kind .. text(ms > 1 and math.floor(2 * math.log(ms) / math.log(2)) or 0), n)
      count(kind .. 'sum', ms * n)
    end
  end
  local fields = {}
  for field in pairs(tally) do fields[#fields + 1] = field end
  if #fields == 0 then return end
  local minute = text(math.floor(now / 60000))
  local had = call('HMGET', K.tally, 'minute', unpack(fields))
  if had[1] and had[1] ~= minute then
    fold(had[1])
    had = {}
  end
  local set = had[1] and {} or { 'minute', minute }
  for i, field in ipairs(fields) do
    set[#set + 1] = field
    set[#set + 1] = text(tally[field] + (had[i + 1] or 0))
  end
  call('HSET', K.tally, unpack(set))
end
