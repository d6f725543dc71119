--@use base
-- leases: who works on a service, and what time it is.
--
-- KEYS[1] root
--
-- reply { now (ms, Redis TIME), workers with a lease, alive or not… }
return { now, unpack(call('ZRANGE', K.leases, 0, -1)) }
