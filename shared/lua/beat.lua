--@flags allow-oom
--@use base
-- beat: renews a worker's lease on one service.
--
-- KEYS[1] root
-- ARGV[1] worker  text
--
-- reply { now (ms, Redis TIME), ids that it holds and whose cancel was asked for… }
-- so that a cancel is seen even when its message was lost (rule 8).
call('ZADD', K.leases, stamp, worker)
local asked = call('SINTER', K.cancels, K.held .. worker)
-- unpack takes some 8,000 values; what is left is told by the beats that follow
return { now, unpack(asked, 1, math.min(#asked, 1000)) }
