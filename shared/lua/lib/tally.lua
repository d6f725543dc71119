--@use base
-- tally: counts within the script, written once at its end as one text: "<minute> <counter> <n> … <what>=<ms> <n> …", where
-- what is ":wait" or the operation that ran. It is all that a hot script spends on statistics: whoever reads them, and
-- the clocks, let fold.lua add them up. Nothing that decides a job's fate depends on them.
-- Summed up here: fold is bounded by texts, so each of them must be short however many jobs its script had.
local tally = {}
local function count(field, n) tally[field] = (tally[field] or 0) + (n or 1) end

-- A time can be below 0 where the clock was set back.
local function observe(what, ms, n) count(what .. '=' .. text(ms > 0 and ms or 0), n) end

local function write_tally()
  local parts = {}
  for field, n in pairs(tally) do parts[#parts + 1] = field .. ' ' .. text(n) end
  if #parts > 0 then call('RPUSH', K.tally, text(math.floor(now / 60000)) .. ' ' .. table.concat(parts, ' ')) end
end
