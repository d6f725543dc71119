--@use base
-- attempt: the field k, all that a start writes: "<started, ms> <deadline, ms> <rev> <token>". It is one field, because each
-- field has its price at every step: written, looked for, read, logged (performance.md).
-- The token is attempt.worker.random; "attempt." stands for none: void.
local function attempt_of(k)
  return string.match(k or '', '^(%d+) (%d+) (%d+) ((%d+)%..*)$')
end
local function voided(k)
  local started, deadline, rev, _, attempt = attempt_of(k)
  return started .. ' ' .. deadline .. ' ' .. rev .. ' ' .. attempt .. '.'
end

-- The revision: of the last change (v) or the last start (in k), whichever is later; an end adds one and writes nothing.
local function rev_of(state, v, k)
  local _, _, rev = attempt_of(k)
  rev = math.max(tonumber(v) or 0, tonumber(rev) or 0)
  if state == 'finished' or state == 'failed' or state == 'canceled' then return rev + 1 end
  return rev
end
