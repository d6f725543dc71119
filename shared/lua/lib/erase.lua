--@use head
-- erase: one job, as ../erase.lua tells; the same words are its reply.
local function erase(id)
  local job = K.job .. id
  local f = call('HMGET', job, 'h', 'l', 'rf')
  local state = head_of(f[1]).state
  if not state then return 'gone' end
  if not TERMINAL[state] then return 'running' end
  if f[2] then return 'listed' end
  call('DEL', job)
  if not f[3] then call('ZREM', K.ended .. state, id) end
  return 'ok'
end
