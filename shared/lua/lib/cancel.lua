--@use close
--@use aside
--@use head
-- cancel: one job, as ../cancel.lua tells; the same words are its reply.
-- Strikes an id from a sorted set, or from what an empty has taken of it.
local function strike(id, key, kind, counter)
  if call('ZREM', key, id) == 1 then return true end
  for _, part in ipairs(call('ZRANGE', K.condemned, 0, -1)) do
    if string.match(part, kind .. '$') and call('ZREM', K.condemnedSet .. part, id) == 1 then
      call('HINCRBY', K.counts, counter, -1)
      return true
    end
  end
  return false
end

local function cancel(id, ttl)
  local job = K.job .. id
  local f = call('HMGET', job, 'h', 'v', 'x', 'w', 'ef', 'tt')
  local h = head_of(f[1])
  local state = h.state
  if not state then return 'gone' end
  if state == 'canceled' then return 'canceled' end
  if state == 'finished' or state == 'failed' then return 'ended' end
  local rec = { h = h, x = f[3], w = f[4], ef = f[5], tt = f[6] }
  if state == 'started' then
    if not f[3] then
      h.more = 1
      call('HSET', job, 'h', head_text(h), 'x', stamp, 'v', rev_of(h, f[2]) + 1)
      call('SADD', K.cancels, id)
    end
    call('PUBLISH', CHANNEL.cancels, id)
    return 'asked'
  end
  if state == 'queued' and not (strike(id, K.backlog, 'backlog', 'condemned') or strike_aside(id, h.op)) then
    close(id, rec, 'canceled', ttl, 'err', CANCELED, 'l', rec.tt or ttl)
    call('PERSIST', job)
    call('HINCRBY', K.counts, 'ghosts', 1)
  else
    if state ~= 'queued' then strike(id, K.scheduled, 'scheduled', 'condemnedlater') end
    close(id, rec, 'canceled', ttl, 'err', CANCELED)
  end
  return 'canceled'
end
