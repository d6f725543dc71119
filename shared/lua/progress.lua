--@flags allow-oom
--@use attempt
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
local f = call('HMGET', job, 's', 'k', 'v', 'w', 'pg', 'pm')
if not f[1] then return 'gone' end
local _, _, _, current = attempt_of(f[2])
if f[1] ~= 'started' or current ~= token then return 'lost' end
if (progress == '' or progress == f[5]) and (message == '' or message == f[6]) then return 'ok' end
call('HSET', job, 'v', rev_of(f[1], f[3], f[2]) + 1)
if progress ~= '' then call('HSET', job, 'pg', progress) end
if message ~= '' then call('HSET', job, 'pm', message) end
if f[4] then call('PUBLISH', 'lh:events', id) end
return 'ok'
