--@use base
-- tally: counts within the script, written once at its end as one text: "<minute> <counter> <n> … <what>=<ms> <n> …", where
-- what is ":wait" or the operation that ran. It is all that a hot script spends on statistics: whoever reads them, and
-- the clocks, let fold.lua add them up. Nothing that decides a job's fate depends on them.
local tally, durations = {}, {}
local function count(field, n) tally[field] = (tally[field] or 0) + (n or 1) end

local function observe(what, ms, n)
  local times = durations[what] or {}
  durations[what] = times
  times[ms] = (times[ms] or 0) + (n or 1)
end

local function write_tally()
  for what, times in pairs(durations) do
    for ms, n in pairs(times) do tally[what .. '=' .. text(ms)] = n end
  end
  local parts = {}
  for field, n in pairs(tally) do parts[#parts + 1] = field .. ' ' .. text(n) end
  if #parts > 0 then call('RPUSH', K.tally, text(math.floor(now / 60000)) .. ' ' .. table.concat(parts, ' ')) end
end
