--@flags allow-oom
--@use close
-- cancel: a waiting job never runs; a running one is asked to stop.
--
-- KEYS[1] root
-- ARGV[1] id   text
-- ARGV[2] ttl  int   ms, life of a job canceled here, unless it has its own
--
-- reply "canceled"  terminal now, or was canceled before
--       "asked"     it runs: the worker that holds it closes the call, then it is canceled
--       "ended"     it is finished or failed; nothing written
--       "gone"      no such record; nothing written
--
-- The list entry of a queued job stays (LREM costs 9 ms in the middle of a million): `l` marks it and holds the TTL
-- that the record gets when a take or the sweep drops the entry (rule 8, I6).
local job = K.job .. id
local f = call('HMGET', job, 's', 'v', 'x', 'w', 'ef', 'tt', 'tok')
local state = f[1]
if not state then return 'gone' end
if state == 'canceled' then return 'canceled' end
if state == 'finished' or state == 'failed' then return 'ended' end
local rec = { v = tonumber(f[2]) or 0, x = f[3], w = f[4], ef = f[5], tt = f[6] }
if state == 'started' then
  if not f[3] then
    call('HSET', job, 'x', now, 'v', rec.v + 1)
    call('SADD', K.cancels, id)
  end
  call('PUBLISH', 'lh:cancels', id)
  return 'asked'
end
if state == 'queued' and call('ZREM', K.backlog, id) == 0 then
  close(id, rec, 'canceled', ttl, 'err', CANCELED, 'l', rec.tt or ttl)
  call('PERSIST', job)
  call('HINCRBY', K.counts, 'ghosts', 1)
else
  call('ZREM', K.scheduled, id)
  close(id, rec, 'canceled', ttl, 'err', CANCELED)
end
write_tally()
return 'canceled'
