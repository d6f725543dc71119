--@use base
-- tally: counts within the script, written once at its end, to the running totals and to this minute and hour.
-- Costs a few commands a script and not a job.
local tally = {}
local function count(field, n) tally[field] = (tally[field] or 0) + (n or 1) end

-- Half-octave buckets: b covers 2^(b/2) ms up to 2^((b+1)/2) ms; beside them the sum, for means.
local names = {} -- one call sees the same few durations over and over
local function observe(kind, ms)
  local key = kind .. text(ms)
  local field = names[key]
  if not field then
    field = kind .. text(ms > 1 and math.floor(2 * math.log(ms) / math.log(2)) or 0)
    names[key] = field
  end
  count(field)
  count(kind .. 'sum', ms)
end

local function write_tally()
  if next(tally) == nil then return end
  local minute = K.stats .. 'm' .. math.floor(now / 60000)
  local hour = K.stats .. 'h' .. math.floor(now / 3600000)
  local fresh = false
  for field, n in pairs(tally) do
    call('HINCRBY', K.counts, field, n)
    fresh = call('HINCRBY', minute, field, n) == n or fresh
    call('HINCRBY', hour, field, n)
  end
  if fresh then -- a field that was not there: perhaps the whole minute was not
    call('PEXPIRE', minute, 90000000) -- 25 h
    call('PEXPIRE', hour, 691200000) -- 8 days
  end
end
