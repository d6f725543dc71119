--@flags allow-oom
--@use base
-- leases: who works on a service, and what time it is.
--
-- KEYS[1] root
--
-- reply { now (ms, Redis TIME), workers with a lease, alive or not… }
-- The flags make Redis refuse it where it refuses a beat (READONLY, MISCONF), although it only reads: else a reaper
-- would take a time in which nobody could beat for everybody's death.
return { now, unpack(call('ZRANGE', K.leases, 0, -1)) }
