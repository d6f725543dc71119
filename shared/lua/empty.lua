--@flags allow-oom
--@use base
-- empty: takes everything that waits away from the workers, in constant time; the clocks cancel it (purge.lua).
--
-- KEYS[1] root
-- ARGV[1] nonce  text  names this wish: sent again within an hour it takes nothing that came since
--
-- reply jobs that will be canceled
--
-- I1: until purge cancels it a taken job stands in a part, its hash still says queued or scheduled, and counts.lua
-- counts it so (counts.condemned, counts.condemnedlater). I7: a rename moves, it never copies.
-- The part's score is the sequence number now: a job that was requeued later has a higher one and is kept.
local before = call('GET', K.emptied .. nonce)
if before then return tonumber(before) end
local ghosts = tonumber(call('HGET', K.counts, 'ghosts')) or 0
if call('ZCARD', K.condemned) > 0 then
  ghosts = 0 -- they may stand in an earlier part: then the reply counts some canceled jobs twice, for a moment
end
for _, worker in ipairs(call('ZRANGE', K.leases, 0, -1)) do
  for _, id in ipairs(call('LRANGE', K.wake .. worker, 0, -1)) do
    if ghosts > 0 and (id == '' or call('HGET', K.job .. id, 'l')) then ghosts = ghosts - 1 end
  end
end
local seq = tonumber(call('HGET', K.counts, 'seq')) or 0
local function condemn(key, to, length, kind, counter)
  local n = call(length, key)
  if n == 0 then return 0 end
  local part = nonce .. ':' .. kind
  call('RENAME', key, to .. part)
  call('ZADD', K.condemned, seq, part)
  call('HINCRBY', K.counts, counter, n)
  return n
end
local queued = condemn(K.ready, K.condemnedList, 'LLEN', 'ready', 'condemned')
  + condemn(K.shelf, K.condemnedList, 'LLEN', 'shelf', 'condemned')
  + condemn(K.backlog, K.condemnedSet, 'ZCARD', 'backlog', 'condemned')
for _, op in ipairs(call('SMEMBERS', K.asides)) do
  queued = queued + condemn(K.aside .. op, K.condemnedSet, 'ZCARD', op .. ':backlog', 'condemned')
end
call('DEL', K.asides)
call('HDEL', K.counts, 'aside')
local later = condemn(K.scheduled, K.condemnedSet, 'ZCARD', 'scheduled', 'condemnedlater')
local emptied = math.max(0, queued - ghosts) + later
call('SET', K.emptied .. nonce, emptied, 'PX', 3600000)
return emptied
