--@use record
-- stage: writes members of a batch that is not accepted yet. No queue holds them until release.
--
-- KEYS[1] root
-- ARGV[1] batch      text
-- ARGV[2] members    int   of the batch in this service
-- ARGV[3] life       int   ms that the counts outlive the last end: the longest life of a member
-- ARGV[4] maxQueued  int   jobs that may wait in the service; 0 = no limit
-- ARGV[5…] repeated: run, id, payload; the latter two as often as run says (lib/record.lua)
--
-- reply "ok"    staged, now or by an earlier sending
--       "full"  maxQueued would be passed; nothing written
--
-- I1: a member is `deferred` and stands in stage:<batch> alone; `staged` names the batch, so that the clocks find it
-- when the gateway has died. I6: it has no TTL.
local fresh, ids, at = {}, {}, rest
while at <= #ARGV do
  local ends = at + 2 * string.match(ARGV[at], '^%d+')
  for place = at + 1, ends, 2 do
    if call('EXISTS', K.job .. ARGV[place]) == 0 then
      fresh[place] = true
      ids[#ids + 1] = ARGV[place]
    end
  end
  at = ends + 1
end
if #ids == 0 then return 'ok' end
if maxQueued > 0 then
  local f = call('HMGET', K.counts, 'ghosts', 'staged', 'aside')
  local waiting = call('LLEN', K.ready) + call('LLEN', K.shelf) + call('ZCARD', K.backlog) + call('ZCARD', K.scheduled)
    - (tonumber(f[1]) or 0) + (tonumber(f[2]) or 0) + (tonumber(f[3]) or 0)
  if waiting + #ids > maxQueued then return 'full' end
end
at = rest
while at <= #ARGV do
  local n, more = run_of(ARGV[at])
  for place = at + 1, at + 2 * n, 2 do
    if fresh[place] then write_record(K.job .. ARGV[place], ARGV[place + 1], more, 'deferred', 0) end
  end
  at = at + 2 * n + 1
end
if call('HSETNX', K.batch .. batch, 'left', members) == 1 then
  call('HSET', K.batch .. batch, 'members', members, 'life', life)
end
call('RPUSH', K.stage .. batch, unpack(ids))
call('ZADD', K.staged, 'NX', now, batch)
call('HINCRBY', K.counts, 'staged', #ids)
return 'ok'
