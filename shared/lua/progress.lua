--@flags allow-oom
--@use head
-- progress: what the microservice says of its own work.
--
-- KEYS[1] root
-- ARGV[1] id        text
-- ARGV[2] token     text  of the attempt
-- ARGV[3] progress  text  0–1, "" = unchanged
-- ARGV[4] message   text  "" = unchanged
--
-- reply "ok"    noted, now or by an earlier sending
--       "lost"  the attempt is over or not ours; nothing written
--       "gone"  no such record; nothing written
local job = K.job .. id
local f = call('HMGET', job, 'h', 'v', 'w', 'pg', 'pm')
local h = head_of(f[1])
if not h.state then return 'gone' end
local _, _, _, current = attempt_of(h.start)
if h.state ~= 'started' or current ~= token then return 'lost' end
if (progress == '' or progress == f[4]) and (message == '' or message == f[5]) then return 'ok' end
call('HSET', job, 'v', rev_of(h, f[2]) + 1)
if progress ~= '' then call('HSET', job, 'pg', progress) end
if message ~= '' then call('HSET', job, 'pm', message) end
if f[3] then call('PUBLISH', CHANNEL.events, id) end
return 'ok'
