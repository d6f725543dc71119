--@use hand_back
--@use close
--@use aside
-- others: what turn.lua does with jobs that are not common, in its words: worker, poison, leaving, head, took.

-- Another try, later or at once. job: id, h, rev, pri, w.
local function again(job, delay, near, ...)
  local id, key, h = job.id, job.key, job.h
  h.state, h.more = delay > 0 and 'scheduled' or 'queued', 1
  call('HDEL', key, 'pg', 'pm') -- progress is an attempt's
  if delay > 0 then
    call('HSET', key, 'h', head_text(h), 'due', now + delay, 'v', job.rev + 1, ...)
    if near then call('HSET', key, 'nr', 1) end
    call('ZADD', K.scheduled, now + delay, id)
  else
    call('HSET', key, 'h', head_text(h), 'v', job.rev + 1, ...)
    push(id, job.pri, h.n, near)
  end
  if job.w then call('PUBLISH', CHANNEL.events, id) end
end

local function finish(id, job, began, how, body)
  observe(job.h.op, now - began)
  if how.extra == '' then return close(id, job, 'finished', how.ttl, 'r', body) end
  local size, type = string.match(how.extra, '^(%d*) (.*)$')
  local set = size ~= '' and { 'rf', size } or { 'r', body }
  if type ~= '' then
    set[3], set[4] = 'rt', type
  end
  close(id, job, 'finished', how.ttl, unpack(set))
end

-- was: the head as it is; how: as turn.lua reads it
local function settle(id, key, was, how, note, body)
  local token, kind, ttl = how.token, how.kind, how.ttl
  local h = head_of(was)
  if string.sub(h.start, -#token) ~= token then
    count('stale')
    return 'lost' -- I4: another attempt's token changes nothing
  end
  if h.state ~= 'started' then return 'ok' end
  leaving[#leaving + 1] = id
  local f = call('HMGET', key, 'x', 'w', 'ef', 'tt', 'd', 'pri', 'log', 'v')
  local job = { id = id, key = key, h = h, x = f[1], w = f[2], ef = f[3], tt = f[4], pri = tonumber(f[6] or nil) }
  local started, _, _, _, attempt = attempt_of(h.start)
  if kind == 'finish' and not job.x then
    job.timing = note
    finish(id, job, started, how, body)
    return 'ok'
  end
  local redeliveries = tonumber(f[5]) or 0
  job.rev = rev_of(h, f[8])
  if kind == 'finish' then
    note = string.format('{"attempt":%d,"worker":"%s","started":%s,"ended":%s,"outcome":"finished"}', attempt, worker, started, stamp)
  end
  local log = f[7] and note ~= '' and f[7] .. '\n' .. note or f[7] or note
  if #log > 16384 then log = string.sub(log, (string.find(log, '\n', #log - 12288, true) or 0) + 1) end
  local delay = tonumber(how.extra) or 0
  if job.x then
    -- a cancel that was asked for wins over whatever the call came to (rule 8)
    close(id, job, 'canceled', ttl, 'a', attempt, 'log', log, 'err', CANCELED)
    return 'canceled'
  elseif kind == 'fail' then
    local size, type = string.match(how.extra, '^k(%d*) (.*)$')
    local line_end = size and find(body, '\n', 1, true) -- JSON of one line, so the first one ends it
    local err = line_end and string.sub(body, 1, line_end - 1) or body
    if not size then close(id, job, 'failed', ttl, 'err', err, 'log', log)
    elseif size ~= '' then close(id, job, 'failed', ttl, 'err', err, 'log', log, 'kt', type, 'kf', size)
    else close(id, job, 'failed', ttl, 'err', err, 'log', log, 'kt', type, 'k', string.sub(body, line_end + 1)) end
  elseif kind == 'retry' then
    count('retried')
    again(job, delay, false, 'a', attempt, 'log', log)
  elseif kind == 'redeliver' then
    if redeliveries >= poison then
      count('poison')
      close(id, job, 'failed', ttl, 'err', body, 'log', log, 'd', redeliveries + 1)
      return 'failed'
    else
      count('redelivered')
      again(job, delay, true, 'log', log, 'd', redeliveries + 1, 'a', attempt - 1)
    end
  else
    count('returned')
    call('HDEL', key, 'one') -- not called, or called and taken back: it may be called once more
    again(job, delay, true, 'a', attempt - 1)
  end
  return 'ok'
end

-- more_ids: others were popped from the list after it
local function start(id, key, was, payload, more_ids)
  local h = head_of(was)
  if h.state ~= 'queued' then return drop(id) end
  local f = call('HMGET', key, 'pri', 'to', 'o', 'w', 'a', 'g', 'd', 'due', 'v')
  local pri = f[1] and tonumber(f[1])
  local limit = limit_of(h.op)
  if not limit then return set_aside(id, h.op, pri, h.n) end
  if pri and pri < 5 and (more_ids or call('LLEN', K.ready) > 0) then
    return to_backlog(id, pri, h.n) -- it stood in an empty list, and others came since
  end
  local deadline = text(now + (f[2] or limit))
  local attempt = text((tonumber(f[5]) or 0) + 1)
  h.start = stamp .. ' ' .. deadline .. ' ' .. text(rev_of(h, f[9]) + 1) .. ' ' .. attempt .. takes
  h.state = 'started'
  call('HSET', key, 'h', head_text(h))
  if attempt == '1' and not f[6] and not f[7] then observe(':wait', now - (f[8] or h.created)) end
  if f[4] then call('PUBLISH', CHANNEL.events, id) end
  took(id, ' ' .. h.created .. ' ' .. h.op .. ' ' .. attempt .. ' ' .. (f[6] or '0') .. ' ' .. (f[7] or '0') .. ' ' .. deadline
    .. (f[3] and '\n' .. f[3] or ''), payload)
  if not pri then head = h.n end
end

-- Operations of this worker that have jobs aside.
local function asides()
  local known = {}
  for _, op in ipairs(slots > 0 and call('SMEMBERS', K.asides) or {}) do
    if limit_of(op) then known[#known + 1] = op end
  end
  return known
end

-- The next id while the backlog or what stands aside has some: those above the default priority, ready, those below it; among
-- those of one priority the oldest. Returns { id } or {}, and whether it stood aside.
-- known: as asides() gave it; an operation that has no more is removed from it.
local default = 35184372088832 -- the score at which priority 5 would begin: (9 - 5) * 2^43
local function next_ids(known)
  -- one of another priority that was pushed to an empty list stands at its end: put it in its place first
  local tail, f
  while true do
    tail = call('LINDEX', K.ready, -1)
    f = tail and call('HMGET', K.job .. tail, 'h', 'pri')
    if not (f and f[2]) then break end
    call('RPOP', K.ready)
    local h = head_of(f[1])
    if h.state == 'queued' then to_backlog(tail, f[2], h.n) else drop(tail) end
  end
  local first, score = unpack(call('ZRANGE', K.backlog, 0, 0, 'WITHSCORES'))
  if first and (tonumber(score) < default or not tail) then score = tonumber(score)
  else
    first = nil
    score = tail and default + (head_of(f[1]).n or 0) or math.huge
  end
  local at, id
  for i = #known, 1, -1 do
    local oldest = call('ZRANGE', K.aside .. known[i], 0, 0, 'WITHSCORES')
    if not oldest[1] then table.remove(known, i)
    elseif tonumber(oldest[2]) < score then at, id, score = i, oldest[1], tonumber(oldest[2]) end
  end
  if id then
    strike_aside(id, known[at])
    if call('EXISTS', K.aside .. known[at]) == 0 then table.remove(known, at) end
    return { id }, true
  end
  if first then
    call('ZREM', K.backlog, first)
    return { first }
  end
  return tail and { call('RPOP', K.ready) } or {}
end
