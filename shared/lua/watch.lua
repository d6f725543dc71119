--@flags allow-oom
--@use head
-- watch: marks a live record, so that whatever changes it publishes its id.
--
-- KEYS[1] root
-- ARGV[1] id  text
--
-- reply { state, rev }  marked, now or before; a terminal record is left alone
--       {}              no such record; nothing written
local job = K.job .. id
local f = call('HMGET', job, 'h', 'v', 'w')
local h = head_of(f[1])
if not h.state then return {} end
if not f[3] and not TERMINAL[h.state] then
  h.more = 1
  call('HSET', job, 'w', 1, 'h', head_text(h))
end
return { h.state, rev_of(h, f[2]) }
