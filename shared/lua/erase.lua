--@flags allow-oom
--@use erase
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
local reply = erase(id)
strike_erased()
return reply
