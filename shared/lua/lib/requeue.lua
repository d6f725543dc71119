--@use push
--@use head
--@use batch
-- requeue: one job, as ../requeue.lua tells; the same words are its reply.
local function requeue(id, rev)
  local job = K.job .. id
  local f = call('HMGET', job, 'h', 'v', 'l', 'pri', 'g', 'w', 'ef')
  local h = head_of(f[1])
  local state, v = h.state, rev_of(h, f[2])
  if not state then return 'gone' end
  if state == 'queued' and v == rev + 1 then return 'ok' end
  if state ~= 'failed' and state ~= 'canceled' then return 'state' end
  if v ~= rev then return 'changed' end
  local seq = call('HINCRBY', K.counts, 'seq', 1)
  call('PERSIST', job)
  call('ZREM', K.ended .. state, id)
  call('HDEL', job, 'err', 'x', 'l', 'a', 'd', 'nr', 'pg', 'pm', 'k', 'kt', 'kf', 'one')
  h.state, h.more, h.n, h.start, h.ended = 'queued', 1, seq, '', ''
  call('HSET', job, 'h', head_text(h), 'v', v + 1, 'due', now, 'g', (tonumber(f[5]) or 0) + 1)
  if f[3] then
    call('HINCRBY', K.counts, 'ghosts', -1) -- its entry is still listed: a second one would break I7
  else
    push(id, f[4] and tonumber(f[4]), seq, false)
  end
  call('HINCRBY', K.counts, 'requeued', 1)
  if f[7] and string.find(f[7], 'b', 1, true) then in_batch(id, state, -1) end
  if f[6] then call('PUBLISH', CHANNEL.events, id) end
  return 'ok'
end
