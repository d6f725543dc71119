--@flags allow-oom
--@use attempt
-- watch: marks a live record, so that whatever changes it publishes its id.
--
-- KEYS[1] root
-- ARGV[1] id  text
--
-- reply { state, rev }  marked, now or before; a terminal record is left alone
--       {}              no such record; nothing written
local job = K.job .. id
local f = call('HMGET', job, 's', 'v', 'w', 'k')
local state = f[1]
if not state then return {} end
if not f[3] and state ~= 'finished' and state ~= 'failed' and state ~= 'canceled' then call('HSET', job, 'w', 1, 'z', 1) end
return { state, rev_of(state, f[2], f[4]) }
