--@use requeue
-- requeue: starts a failed or canceled job anew, under the same id.
--
-- KEYS[1] root
-- ARGV[1] id       text
-- ARGV[2] rev      int   the record's rev that the caller saw, so that a second sending does not start a second run
-- ARGV[3] idem     text  hash of an Idempotency-Key, for one who did not see the first reply; "" = none
-- ARGV[4] idemTtl  int   ms that it is remembered
--
-- reply "ok"       queued, now or by an earlier sending
--       "again"    the Idempotency-Key has queued it before, and its record is still there; nothing written
--       "changed"  the record has moved since; nothing written, look again
--       "state"    neither failed nor canceled; nothing written
--       "gone"     no such record; nothing written
if idem ~= '' and call('EXISTS', K.idem .. idem) == 1 and call('EXISTS', K.job .. id) == 1 then return 'again' end
local reply = requeue(id, rev)
if idem ~= '' and reply == 'ok' then call('SET', K.idem .. idem, id, 'PX', idemTtl) end
return reply
