--@flags allow-oom
--@use base
-- workers: what the workers say of themselves, and what time it is: who judges their beats needs both by one clock.
--
-- KEYS[1] workers HASH  lh:workers
--
-- reply { now (ms, Redis TIME), JSON of a worker… }
local infos = call('HVALS', KEYS[1])
return { now, unpack(infos, 1, math.min(#infos, 7000)) }
