--@flags allow-oom
--@use head
--@use fold
-- counts: the state of one service in constant time, for /health, the dashboard and estimates.
--
-- KEYS[1] root
--
-- reply { now, queued, scheduled, started, finished, failed, canceled, paused (0|1), oldest (ms since 1970 when it joined, 0 = none),
--         seq, head, workers, counts (flat HGETALL), aside (flat: operation, jobs that stand aside, ms when the first of them joined),
--         urgent (jobs of a priority above the default that wait in the backlog), listed (entries of the list of the default one) }
-- Nothing is scanned: a length a state and an operation, and a cardinality a worker (I1's count of what is held). What has finished is counted, as an entry of
-- its index may stand for many: all that ever did but those that were struck (lib/entry.lua).
-- Where more than 2,000 scripts have counted since the last look, fewer are told until the clocks have added them up. What an empty took away
-- (counts.condemned) is queued or scheduled until purge has canceled it, as its hash says.
fold()
local counts = call('HGETALL', K.counts)
local of = { ghosts = 0, seq = 0, head = 0, condemned = 0, condemnedlater = 0, finished = 0, struck = 0 }
for i = 1, #counts, 2 do
  if of[counts[i]] then of[counts[i]] = tonumber(counts[i + 1]) end
end
local workers = call('ZRANGE', K.leases, 0, -1)
local started, taken = 0, 0
for _, worker in ipairs(workers) do
  started = started + call('SCARD', K.held .. worker)
  taken = taken + call('LLEN', K.wake .. worker)
end
local oldest = 0
local function since(id)
  -- a delayed, retried or requeued job has waited since it was due, as its observed wait says (turn.lua)
  local f = id and call('HMGET', K.job .. id, 'h', 'due')
  local joined = f and tonumber(f[2] or head_of(f[1]).created)
  if joined and (oldest == 0 or joined < oldest) then oldest = joined end
  return joined
end
for _, list in ipairs({ K.ready, K.shelf }) do since(call('LINDEX', list, -1) or nil) end
-- When the first of those joined that are scored by priority and sequence: the oldest of each priority is asked, for an old one may
-- wait behind ever new ones of a higher.
local span = 8796093022208 -- see push.lua
local function first_of(key)
  local first, from = nil, '-inf'
  while true do
    local id, score = unpack(call('ZRANGEBYSCORE', key, from, '+inf', 'WITHSCORES', 'LIMIT', 0, 1))
    if not id then return first or 0 end
    local joined = since(id)
    if joined and (not first or joined < first) then first = joined end
    from = text((math.floor(score / span) + 1) * span)
  end
end
first_of(K.backlog)
local aside, standing = {}, 0
for _, op in ipairs(call('SMEMBERS', K.asides)) do
  local n = #aside
  aside[n + 1], aside[n + 2], aside[n + 3] = op, call('ZCARD', K.aside .. op), first_of(K.aside .. op)
  standing = standing + aside[n + 2]
end
local queued = call('LLEN', K.ready) + call('LLEN', K.shelf) + call('ZCARD', K.backlog) + standing + taken
  + of.condemned - of.ghosts
return { now, math.max(0, queued), call('ZCARD', K.scheduled) + of.condemnedlater, started,
  math.max(0, of.finished - of.struck),
  call('ZCARD', K.ended .. 'failed'), call('ZCARD', K.ended .. 'canceled'), call('EXISTS', K.paused), oldest, of.seq,
  of.head, #workers, counts, aside, call('ZCOUNT', K.backlog, '-inf', '(35184372088832'),
  call('LLEN', K.ready) + call('LLEN', K.shelf) } -- the score: see others.lua
