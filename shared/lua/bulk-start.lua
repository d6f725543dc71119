--@use fold
-- bulk-start: writes down an action on many jobs; the clocks carry it out (bulk-step.lua).
--
-- KEYS[1] root
-- ARGV[1] bulk    text  its id; sent again it changes nothing
-- ARGV[2] action  text  cancel | requeue | delete
-- ARGV[3] state   text  of the jobs it is for; "" = any, with ids only
-- ARGV[4] tag     text  that they must have; "" = any
-- ARGV[5] older   int   ms since their end, or since their submit while they have not ended; 0 = any
-- ARGV[6] newer   int   ms likewise, at most; 0 = any
-- ARGV[7] dry     int   1 = count only
-- ARGV[8] most    int   bulk actions that one service may have in hand
-- ARGV[9] about   text  JSON for whoever asks later; opaque
-- ARGV[10…] repeated: id; none = all jobs of the state
--
-- reply "ok" | "busy" too many are in hand; nothing written
--
-- What it may touch is fixed here, so that it ends: a queue's list is copied (10 ms at a million), sorted sets are
-- walked up to this moment.
local op = K.bulk .. bulk
if call('EXISTS', op) == 1 then return 'ok' end
if call('ZCARD', K.bulks) >= most then return 'busy' end
local todo, walk, total = K.todo .. bulk, '', 0
local since = newer > 0 and now - newer or 0
if #ARGV >= rest then
  for i = rest, #ARGV do call('LPUSH', todo, ARGV[i]) end
elseif state == 'queued' then
  local list = call('EXISTS', K.paused) == 1 and K.shelf or K.ready
  if call('EXISTS', list) == 1 then call('COPY', list, todo) end
  walk = 'backlog'
  total = call('ZCARD', K.backlog) + (call('HGET', K.counts, 'aside') or 0) -- the latter are walked after it (bulk-step.lua)
elseif state == 'started' then
  for _, worker in ipairs(call('ZRANGE', K.leases, 0, -1)) do
    for _, id in ipairs(call('SMEMBERS', K.held .. worker)) do call('LPUSH', todo, id) end
  end
elseif state == 'scheduled' then
  walk = 'scheduled'
  total = call('ZCARD', K.scheduled)
else
  walk = 'ended:' .. state
  total = call('ZCOUNT', K.ended .. state, since, now - older)
  if state == 'finished' and total > 0 then
    -- its entries hold as many as they do in the mean
    fold()
    local f = call('HMGET', K.counts, 'finished', 'struck')
    total = math.max(total, math.floor(total * ((f[1] or 0) - (f[2] or 0)) / call('ZCARD', K.ended .. state)))
  end
end
total = total + call('LLEN', todo)
call('HSET', op, 'action', action, 'state', state, 'tag', tag, 'since', since, 'until', now - older, 'dry', dry, 'about', about,
  'walk', walk, 'at', '', 'score', '', 'total', total, 'looked', 0, 'matched', 0, 'done', 0, 'created', now)
call('ZADD', K.bulks, now, bulk)
return 'ok'
