--@use head
--@use entry
-- erase: one job, as ../erase.lua tells; the same words are its reply.
-- A script that erases calls strike_erased() after it, which writes each entry once.
local erased, alone = {}, 0

-- Whether files may lie in RESULTS_DIR: the result, an answer that was kept, or what an attempt wrote that did not count: it was
-- canceled, lost its lease, or another one followed. Then the index entry stays: the sweep removes the files by it.
local function may_have_files(h, rf, kf, redeliveries, run)
  if rf or kf or redeliveries or run then return true end
  local _, _, _, token, attempt = attempt_of(h.start)
  return token and (h.state == 'canceled' or attempt ~= '1' or byte(token, -1) == 46) -- 46 = "." at its end: voided
end

local function erase(id)
  local job = K.job .. id
  local f = call('HMGET', job, 'h', 'l', 'rf', 'kf', 'd', 'g')
  local h = head_of(f[1])
  local state = h.state
  if not state then return 'gone' end
  if not TERMINAL[state] then return 'running' end
  if f[2] then return 'listed' end
  call('DEL', job)
  if may_have_files(h, f[3], f[4], f[5], f[6]) then return 'ok' end
  local struck = call('ZREM', K.ended .. state, id)
  if state ~= 'finished' then return 'ok' end
  if struck == 1 then
    alone = alone + 1
  else
    local ms = string.match(h.ended, '^%d+')
    erased[ms] = erased[ms] or {}
    erased[ms][id] = true
  end
  return 'ok'
end

-- Returns what entries of finished jobs became, by what they were; '' = nothing.
local function strike_erased()
  local became, struck, key = {}, alone, K.ended .. 'finished'
  for ms, ids in pairs(erased) do
    for _, entry in ipairs(call('ZRANGE', key, ms, ms, 'BYSCORE')) do
      local n, left = strike_entry(key, entry, ms, ids)
      became[entry], struck = left, struck + n
    end
  end
  count_struck('finished', struck)
  return became
end
