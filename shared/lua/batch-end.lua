--@flags allow-oom
--@use base
-- batch-end: accepts a prepared batch, or gives it up. The first one decides; nothing changes it again.
--
-- KEYS[1] batch HASH  <namespace>:{batch:<id>}
-- ARGV[1] state  text  committed | aborted
-- ARGV[2] age    int   ms; a younger one is left alone; 0 = whatever its age
--
-- reply state       what it is now, by this or by an earlier sending: committed or aborted
--       "preparing"  too young; nothing written
--       "gone"       no such record: it was never opened, or given up long ago; nothing written
--
-- Committed is the acceptance (protocol.md §6). I6: it has no TTL until its last member has ended.
local batch = KEYS[1]
local f = call('HMGET', batch, 's', 'c')
if not f[1] then return 'gone' end
if f[1] ~= 'preparing' then return f[1] end
if now - f[2] < age then return 'preparing' end
call('HSET', batch, 's', state)
if state == 'committed' then call('PERSIST', batch) end
return state
