--@flags allow-oom
--@use cancel
--@use requeue
--@use erase
-- bulk-step: one step of the oldest action on many jobs, some 500 of them.
--
-- KEYS[1] root
-- ARGV[1] ttl   int   ms, life of a job canceled here
-- ARGV[2] life  int   ms that the finished action can be read
--
-- reply { looked at, 1 = another step is to be done }; { 0, 0 } = nothing is in hand
--
-- Place, counts and jobs change in one step, so a crash loses and repeats nothing, and two may step at once.
local bulk = call('ZRANGE', K.bulks, 0, 0)[1]
if not bulk then return { 0, 0 } end
local op, todo = K.bulk .. bulk, K.todo .. bulk
local o = call('HMGET', op, 'action', 'state', 'tag', 'until', 'dry', 'walk', 'at', 'score', 'since')
if not o[1] then
  call('ZREM', K.bulks, bulk)
  return { 0, 1 }
end
local action, state, before, dry, walk = o[1], o[2], tonumber(o[4]), o[5] == '1', o[6]
local tag = o[3] ~= '' and '"' .. o[3] .. '"'
local since = tonumber(o[9] or 0)
local looked, matched, done = 0, 0, 0

local function act(id)
  looked = looked + 1
  local f = id ~= '' and call('HMGET', K.job .. id, 'h', 'v', 'o')
  local h = head_of(f and f[1])
  if not h.state or (state ~= '' and h.state ~= state) then return end
  local at = tonumber(TERMINAL[h.state] and string.match(h.ended, '%d+') or h.created)
  if at > before or at < since then return end
  -- tags have no character that JSON escapes, and a text that holds such brackets has its quotes escaped
  if tag and not string.find(string.match(f[3] or '', '"tags":(%b[])') or '', tag, 1, true) then return end
  matched = matched + 1
  if dry then return end
  local reply
  if action == 'cancel' then reply = cancel(id, ttl)
  elseif action == 'requeue' then reply = requeue(id, rev_of(h, f[2]))
  else
    reply = erase(id)
    if reply == 'listed' then
      call('HSET', K.job .. id, 'l', 1) -- goes with its list entry
      reply = 'ok'
    end
  end
  if reply == 'ok' or reply == 'asked' or (reply == 'canceled' and h.state ~= 'canceled') then done = done + 1 end
end

local more = 1
local ids = call('LRANGE', todo, -500, -1)
if #ids > 0 then
  for i = #ids, 1, -1 do act(ids[i]) end
  strike_erased()
  call('LTRIM', todo, 0, -#ids - 1)
elseif walk == '' then
  more = 0
else
  -- The place is the last entry that stayed: what is struck before it shifts nothing.
  local set = KEYS[1] .. walk
  local start = 0
  if o[8] == '' then
    -- an index of ended jobs goes by their ends: what is too old is not even looked at
    if since > 0 and string.sub(walk, 1, 6) == 'ended:' then start = call('ZCOUNT', set, '-inf', '(' .. since) end
  else
    if call('ZSCORE', set, o[7]) == o[8] then start = call('ZRANK', set, o[7]) + 1
    else start = call('ZCOUNT', set, '-inf', '(' .. o[8]) end
  end
  local ended = string.sub(walk, 1, 6) == 'ended:'
  local entries, jobs, at, slice = {}, 0, 0, nil
  more = 0
  while true do
    -- a few at a time: an entry may stand for many jobs
    if at % 16 == 0 then slice = call('ZRANGE', set, start + at, start + at + 15, 'WITHSCORES') end
    local name, score = slice[at % 16 * 2 + 1], slice[at % 16 * 2 + 2]
    if not name or ended and tonumber(score) > before then break end
    if jobs >= 500 then
      more = 1
      break
    end
    at = at + 1
    entries[at] = { name = name, score = score, ids = ids_of(name) }
    jobs = jobs + #entries[at].ids
  end
  for _, entry in ipairs(entries) do
    for _, id in ipairs(entry.ids) do act(id) end
  end
  local became = strike_erased()
  for i = at, 1, -1 do
    local name, score = became[entries[i].name] or entries[i].name, entries[i].score
    if call('ZSCORE', set, name) == score then
      call('HSET', op, 'at', name, 'score', score)
      break
    end
  end
end
call('HINCRBY', op, 'looked', looked)
call('HINCRBY', op, 'matched', matched)
call('HINCRBY', op, 'done', done)
if more == 0 and state == 'queued' and walk ~= '' then
  -- What stands aside, operation by operation. A job goes there from the queue and never back, so none is missed.
  local names, next_walk = call('SMEMBERS', K.asides), nil
  table.sort(names)
  for _, name in ipairs(names) do
    if not next_walk and 'aside:' .. name > (walk == 'backlog' and '' or walk) then next_walk = 'aside:' .. name end
  end
  if next_walk then
    call('HSET', op, 'walk', next_walk, 'at', '', 'score', '')
    more = 1
  end
end
if more == 0 then
  call('HSET', op, 'ended', now)
  call('PEXPIRE', op, life)
  call('ZREM', K.bulks, bulk)
  call('DEL', todo)
  more = call('ZCARD', K.bulks) > 0 and 1 or 0
end
write_ends()
write_tally()
return { math.max(1, looked), more }
