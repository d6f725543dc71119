--@flags allow-oom
--@use push
--@use attempt
-- promote: queues scheduled jobs that are due, at most 100 a call.
--
-- KEYS[1] root
--
-- reply { promoted, ms until the next one is due (-1 = none is scheduled) }
local due = call('ZRANGEBYSCORE', K.scheduled, '-inf', now, 'LIMIT', 0, 100)
for _, id in ipairs(due) do
  local job = K.job .. id
  local f = call('HMGET', job, 's', 'pri', 'n', 'nr', 'v', 'k')
  if f[1] == 'scheduled' then
    local n = f[3]
    if f[4] then
      call('HDEL', job, 'nr')
    else
      n = call('HINCRBY', K.counts, 'seq', 1)
    end
    call('HSET', job, 's', 'queued', 'n', n, 'v', rev_of(f[1], f[5], f[6]) + 1)
    push(id, f[2] and tonumber(f[2]), n, f[4])
  end
end
if #due > 0 then call('ZREM', K.scheduled, unpack(due)) end
local next = call('ZRANGE', K.scheduled, 0, 0, 'WITHSCORES')
return { #due, next[2] and math.max(0, next[2] - now) or -1 }
