--@use base
-- fold: adds what the scripts have counted (tally.lua) to the totals, and to its minute and hour; at most 2,000 texts a call,
-- about 2 ms. One step: nothing is counted twice or lost.
-- Histograms have half-octave buckets: b covers 2^(b/2) ms up to 2^((b+1)/2) ms; beside them the sum, for means.
local function fold()
  local minutes, means = {}, {}
  for _, entry in ipairs(call('LPOP', K.tally, 2000) or {}) do
    local minute, rest = string.match(entry, '^(%d+)(.*)$')
    local sums = minutes[minute] or {}
    minutes[minute] = sums
    local function add(field, n) sums[field] = (sums[field] or 0) + n end
    for field, n in string.gmatch(rest, ' (%S+) (%d+)') do
      local what, ms = string.match(field, '^(.*)=(%d+)$')
      if what then
        local kind = what == ':wait' and 'w' or 'r'
        ms = tonumber(ms)
        add(kind .. (ms > 1 and math.floor(2 * math.log(ms) / math.log(2)) or 0), n)
        add(kind .. 'sum', ms * n)
        if kind == 'r' then
          local mean = means[what] or { n = 0, ms = 0 }
          mean.n, mean.ms = mean.n + n, mean.ms + ms * n
          means[what] = mean
        end
      else
        add(field, n)
      end
    end
  end
  for minute, sums in pairs(minutes) do
    local slices = { K.stats .. 'm' .. minute, K.stats .. 'h' .. math.floor(minute / 60) }
    for field, n in pairs(sums) do
      call('HINCRBY', K.counts, field, text(n))
      for _, slice in ipairs(slices) do call('HINCRBY', slice, field, text(n)) end
    end
    call('PEXPIRE', slices[1], 90000000) -- 25 h
    call('PEXPIRE', slices[2], 691200000) -- 8 days
  end
  for op, mean in pairs(means) do
    -- a mean that forgets: after n more runs the old one weighs 0.9^n
    local old, keep = tonumber(call('HGET', K.counts, 'mean:' .. op)), 0.9 ^ mean.n
    local new = mean.ms / mean.n
    call('HSET', K.counts, 'mean:' .. op, text(math.floor(old and old * keep + new * (1 - keep) or new)))
  end
end
