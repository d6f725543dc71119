--@use head
--@use entry
-- erase: one job, as ../erase.lua tells; the same words are its reply.
-- A script that erases calls strike_erased() after it, which writes each entry once.
local erased = {}
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
  local place = state .. ' ' .. string.match(h.ended, '^%d+')
  erased[place] = erased[place] or {}
  erased[place][id] = true
  return 'ok'
end

-- Returns what entries became, by what they were; '' = nothing.
local function strike_erased()
  local became = {}
  for place, ids in pairs(erased) do
    local state, ms = string.match(place, '^(%l+) (%d+)$')
    for _, entry in ipairs(call('ZRANGE', K.ended .. state, ms, ms, 'BYSCORE')) do
      local _, left = strike_entry(state, entry, ms, ids)
      became[entry] = left or ''
    end
  end
  return became
end
