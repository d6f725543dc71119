--@use base
-- erase: one job, as ../erase.lua tells; the same words are its reply.
local function erase(id)
  local job = K.job .. id
  local f = call('HMGET', job, 's', 'l', 'rf')
  if not f[1] then return 'gone' end
  if f[1] ~= 'finished' and f[1] ~= 'failed' and f[1] ~= 'canceled' then return 'running' end
  if f[2] then return 'listed' end
  call('DEL', job)
  if not f[3] then call('ZREM', K.ended .. f[1], id) end
  return 'ok'
end
