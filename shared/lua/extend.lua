--@flags allow-oom
--@use head
-- extend: moves the deadline of a running attempt, whose answer is here and cannot be written yet: no reaper may overrule it meanwhile.
--
-- KEYS[1] root
-- ARGV[1] id     text
-- ARGV[2] token  text  of the attempt
-- ARGV[3] ms     int   from now
--
-- reply "ok"    the deadline is not before that
--       "lost"  the attempt is over or not ours; nothing written
--       "gone"  no such record
local job = K.job .. id
local h = head_of(call('HGET', job, 'h'))
if not h.state then return 'gone' end
local started, deadline, rev, current = attempt_of(h.start)
if h.state ~= 'started' or current ~= token then return 'lost' end
if tonumber(deadline) >= now + ms then return 'ok' end
h.start = started .. ' ' .. text(now + ms) .. ' ' .. rev .. ' ' .. token
call('HSET', job, 'h', head_text(h))
return 'ok'
