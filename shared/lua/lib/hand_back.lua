--@use push
--@use drop
-- hand_back: puts what BLMOVE brought to a wake list back to where the next take finds it, or lets go of it.
local function hand_back(id)
  local f = call('HMGET', K.job .. id, 'h', 'pri')
  local h = head_of(f[1])
  if h.state == 'queued' then push(id, f[2] and tonumber(f[2]), h.n, true) else drop(id) end
end
