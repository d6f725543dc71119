--@flags allow-oom
--@use base
-- park: notes that a service cannot be reached, once.
--
-- KEYS[1] root
--
-- reply { now (ms, Redis TIME), since when it has been noted (ms, the same clock) }
call('HSETNX', K.counts, 'parked', stamp)
return { now, tonumber(call('HGET', K.counts, 'parked')) }
