--@flags allow-oom
--@use base
-- callback-settle: logs one try of a callback, and strikes it from the outbox or sets when it is tried again.
--
-- KEYS[1] root
-- ARGV[1] id     text
-- ARGV[2] due    int   ms, the due time as the lease gave it
-- ARGV[3] delay  int   ms until the next try; -1 = struck
-- ARGV[4] line   text  JSON of the try
--
-- reply "ok"    done
--       "lost"  its due time is another: someone else has it, or the job has ended anew; nothing written
--       "gone"  no such record: struck
--
-- The record outlives the next try by a minute, so that there is something to send; the log lives as long as it.
local entry, job, log = 'c ' .. id, K.job .. id, K.deliveries .. id
local score = call('ZSCORE', K.outbox, entry)
if not score or tonumber(score) ~= due then return 'lost' end
local left = call('PTTL', job)
if delay < 0 or left == -2 then
  call('ZREM', K.outbox, entry)
  if left == -2 then return 'gone' end
else
  call('ZADD', K.outbox, now + delay, entry)
  if left > 0 and left < delay + 60000 then
    left = delay + 60000
    call('PEXPIRE', job, left)
  end
end
call('LPUSH', log, line)
call('LTRIM', log, 0, 19)
call('PEXPIRE', log, left > 0 and left or 604800000)
return 'ok'
