--@flags allow-oom
--@use base
-- erase: removes a terminal record before its time.
--
-- KEYS[1] root
-- ARGV[1] id  text
--
-- reply "ok"       erased; where its result lies in a file, the file and the index entry go with the next sweep, so
--                  that no crash leaves a file that nobody knows of
--       "listed"   canceled, and its list entry is still there: it goes with the entry; nothing written
--       "running"  not terminal; nothing written
--       "gone"     no such record
local job = K.job .. id
local f = call('HMGET', job, 's', 'l', 'rf')
if not f[1] then return 'gone' end
if f[1] ~= 'finished' and f[1] ~= 'failed' and f[1] ~= 'canceled' then return 'running' end
if f[2] then return 'listed' end
call('DEL', job)
if not f[3] then call('ZREM', K.ended .. f[1], id) end
return 'ok'
