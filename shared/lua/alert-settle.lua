--@flags allow-oom
--@use base
-- alert-settle: notes a try to deliver a flip, strikes the flip or sets when it is tried again.
--
-- KEYS[1] root
-- ARGV[1] rule   text
-- ARGV[2] due    int   ms, the entry's due time as the lease gave it
-- ARGV[3] delay  int   ms until the next try; -1 = the flip is over, and the rule's next one is due at once
-- ARGV[4] event  text  the flip that was tried; "" = there was none
-- ARGV[5] line   text  JSON for the log; "" = none
--
-- reply "ok"    done
--       "lost"  its due time is another: someone else has it; nothing written
local entry, flips = 'a ' .. rule, K.alertFlips .. rule
local score = call('ZSCORE', K.outbox, entry)
if not score or tonumber(score) ~= due then return 'lost' end
if line ~= '' then
  call('LPUSH', K.alertLog, line)
  call('LTRIM', K.alertLog, 0, 49)
end
if delay >= 0 then
  call('ZADD', K.outbox, now + delay, entry)
  return 'ok'
end
if call('LINDEX', flips, 0) == event then call('LPOP', flips) end
if call('LLEN', flips) > 0 then
  call('ZADD', K.outbox, now, entry)
else
  call('ZREM', K.outbox, entry)
end
return 'ok'
