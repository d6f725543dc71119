--@use head
--@use entry
-- erase: one job, as ../erase.lua tells; the same words are its reply.
-- A script that erases calls strike_erased() after it, which writes each entry once.
local erased, alone = {}, 0
local function erase(id)
  local job = K.job .. id
  local f = call('HMGET', job, 'h', 'l', 'rf')
  local h = head_of(f[1])
  local state = h.state
  if not state then return 'gone' end
  if not TERMINAL[state] then return 'running' end
  if f[2] then return 'listed' end
  call('DEL', job)
  if f[3] then return 'ok' end
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
