--@use base
-- tally: counts within the script, written once at its end as one text: "<minute> <counter> <n> … <what>=<ms> <n> …", where
-- what is ":wait" or the operation that ran. It is all that a hot script spends on statistics: whoever reads them, and
-- the clocks, let fold.lua add them up. Nothing that decides a job's fate depends on them.
local parts = {}
local function count(field, n) parts[#parts + 1] = field .. ' ' .. text(n or 1) end

-- A time can be below 0 where the clock was set back.
local function observe(what, ms, n) count(what .. '=' .. text(ms > 0 and ms or 0), n) end

local function write_tally()
  if #parts > 0 then call('RPUSH', K.tally, text(math.floor(now / 60000)) .. ' ' .. table.concat(parts, ' ')) end
end
