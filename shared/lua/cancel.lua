--@flags allow-oom
--@use cancel
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
local reply = cancel(id, ttl)
write_ends()
write_tally()
return reply
