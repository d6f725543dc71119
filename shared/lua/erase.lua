--@flags allow-oom
--@use base
-- erase: removes a terminal record before its time.
--
-- KEYS[1] root
-- ARGV[1] id  text
--
-- reply "ok"       erased; a result file is the caller's to delete
--       "listed"   canceled, and its list entry is still there: it goes with the entry; nothing written
--       "running"  not terminal; nothing written
--       "gone"     no such record
local job = K.job .. id
local f = call('HMGET', job, 's', 'l')
if not f[1] then return 'gone' end
if f[1] ~= 'finished' and f[1] ~= 'failed' and f[1] ~= 'canceled' then return 'running' end
if f[2] then return 'listed' end
call('DEL', job)
call('ZREM', K.ended .. f[1], id)
return 'ok'
