--@flags allow-oom
--@use base
-- outbox-settle: strikes a delivered effect, or sets when it is tried again.
--
-- KEYS[1] root
-- ARGV[1] entry  text
-- ARGV[2] due    int   ms, its due time as the lease gave it
-- ARGV[3] delay  int   ms until the next try; -1 = struck
--
-- reply "ok"    done
--       "lost"  its due time is another: someone else has it, or there is news for it; nothing written
local score = call('ZSCORE', K.outbox, entry)
if not score or tonumber(score) ~= due then return 'lost' end
if delay < 0 then
  call('ZREM', K.outbox, entry)
else
  call('ZADD', K.outbox, now + delay, entry)
end
return 'ok'
