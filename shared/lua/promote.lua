--@flags allow-oom
--@use push
--@use fold
--@use head
-- promote: queues scheduled jobs that are due, at most 100 a call, and folds what was counted.
--
-- KEYS[1] root
--
-- reply { promoted, ms until the next one is due (-1 = none is scheduled) }
local due = call('ZRANGEBYSCORE', K.scheduled, '-inf', now, 'LIMIT', 0, 100)
for _, id in ipairs(due) do
  local job = K.job .. id
  local f = call('HMGET', job, 'h', 'pri', 'nr', 'v')
  local h = head_of(f[1])
  if h.state == 'scheduled' then
    local v = rev_of(h, f[4]) + 1
    if f[3] then
      call('HDEL', job, 'nr')
    else
      h.n = call('HINCRBY', K.counts, 'seq', 1)
    end
    h.state, h.more = 'queued', 1
    call('HSET', job, 'h', head_text(h), 'v', v)
    push(id, f[2] and tonumber(f[2]), h.n, f[3])
  end
end
if #due > 0 then call('ZREM', K.scheduled, unpack(due)) end
local next = call('ZRANGE', K.scheduled, 0, 0, 'WITHSCORES')
fold()
return { #due, next[2] and math.max(0, next[2] - now) or -1 }
