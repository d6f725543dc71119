--@flags allow-oom
--@use push
--@use drop
--@use close
-- turn: settles what a worker has done and takes what it has room for, in one round trip.
--
-- KEYS[1] root
-- ARGV[1] worker       text
-- ARGV[2] slots        int   jobs that the worker may hold in this service; 0 = take nothing;
--                            -1 = take nothing and hand back what BLMOVE brought
-- ARGV[3] concurrency  int   jobs that all workers together may hold; 0 = no limit
-- ARGV[4] nonce        text  random, new for each call: the last part of the tokens given
-- ARGV[5] limit        int   ms, the time limit of an operation that ARGV[6] does not name
-- ARGV[6] limits       text  "op=ms op=ms"
-- ARGV[7] poison       int   redeliveries that a run may have
-- ARGV[8…] repeated, settles: id, token, kind, ttl (ms, life of a terminal record), delay (ms),
--          entry (JSON of the ended attempt), error (JSON), result, type ("" = JSON), size (bytes in a file, "" = inline),
--          timing ("first,last" ms)
--   kind: finish     terminal, with the result
--         fail       terminal, with the error
--         retry      an attempt spent: again after delay, at the far end
--         redeliver  no verdict: again after delay, at the taking end, counted; above poison it fails
--         return     handed back, at the taking end, no attempt and no redelivery spent
--
-- reply { verdicts, jobs, more }
--   verdicts  one a settle: "ok" done, now or by an earlier sending of the same token; "lost" the token is not ours:
--             nothing written, drop the work; "gone" no such record
--   jobs      flat: id, token, op, attempt, run, redeliveries, deadline, created, payload, options ("" = none)
--   more      1 = the queue still has jobs; 2 = concurrency is reached; 3 = paused; 0 = empty
--
-- It is told slots and counts what is held itself, so that a repeated call cannot overfill (rule 2).
-- Invariant: an id leaves held in the step that changes the state, so a crash on either side repeats a job and never
-- loses one.
local held = K.held .. worker
local verdicts, leaving = {}, {}
local means = {}

-- Another try, later or at once. rec: v, n, pri, w.
local function again(id, rec, delay, near, ...)
  local job = K.job .. id
  if delay > 0 then
    call('HSET', job, 's', 'scheduled', 'due', now + delay, 'v', rec.v + 1, ...)
    if near then call('HSET', job, 'nr', 1) end
    call('ZADD', K.scheduled, now + delay, id)
  else
    call('HSET', job, 's', 'queued', 'v', rec.v + 1, ...)
    push(id, rec.pri, rec.n, near)
  end
  if rec.w then call('PUBLISH', 'lh:events', id) end
end

local function settle(at)
  local id, kind, ttl, delay, entry, err = ARGV[at], ARGV[at + 2], ARGV[at + 3], tonumber(ARGV[at + 4]), ARGV[at + 5], ARGV[at + 6]
  local job = K.job .. id
  local f = call('HMGET', job, 's', 'tok', 'v', 'x', 'w', 'ef', 'tt', 't', 'op', 'a', 'd', 'n', 'pri', 'log')
  if not f[1] then
    leaving[#leaving + 1] = id
    return 'gone'
  end
  if f[2] ~= ARGV[at + 1] then
    count('stale')
    return 'lost' -- I4: another attempt's token changes nothing
  end
  if f[1] ~= 'started' then return 'ok' end
  leaving[#leaving + 1] = id
  local rec = { v = tonumber(f[3]) or 0, x = f[4], w = f[5], ef = f[6], tt = f[7], n = tonumber(f[12]), pri = f[13] and tonumber(f[13]) }
  local attempt, redeliveries = tonumber(f[10]) or 1, tonumber(f[11]) or 0
  local log = f[14] and f[14] .. '\n' .. entry or entry
  if #log > 16384 then log = string.sub(log, (string.find(log, '\n', #log - 12288, true) or 0) + 1) end
  if rec.x then
    -- a cancel that was asked for wins over whatever the call came to (rule 8)
    close(id, rec, 'canceled', ttl, 'log', log, 'err', CANCELED)
  elseif kind == 'finish' then
    local run = now - f[8]
    observe('r', run)
    local mean = means[f[9]] or { 0, 0 }
    means[f[9]] = { mean[1] + run, mean[2] + 1 }
    local set = { 'r', ARGV[at + 7] }
    if ARGV[at + 9] ~= '' then set = { 'rf', ARGV[at + 9] } end
    if ARGV[at + 8] ~= '' then
      set[3], set[4] = 'rt', ARGV[at + 8]
    end
    close(id, rec, 'finished', ttl, 'tm', ARGV[at + 10], unpack(set))
  elseif kind == 'fail' then
    close(id, rec, 'failed', ttl, 'err', err, 'log', log)
  elseif kind == 'retry' then
    count('retried')
    again(id, rec, delay, false, 'log', log)
  elseif kind == 'redeliver' then
    if redeliveries >= poison then
      count('poison')
      close(id, rec, 'failed', ttl, 'err', err, 'log', log, 'd', redeliveries + 1)
    else
      count('redelivered')
      again(id, rec, delay, true, 'log', log, 'd', redeliveries + 1, 'a', attempt - 1)
    end
  else
    count('returned')
    again(id, rec, delay, true, 'a', attempt - 1)
  end
  return 'ok'
end

local index = 0
for at = rest, #ARGV, 11 do
  index = index + 1
  verdicts[index] = settle(at)
end
if #leaving > 0 then call('SREM', held, unpack(leaving)) end
for op, sum in pairs(means) do
  -- a mean that forgets: after n more runs the old one weighs 0.9^n
  local old = tonumber(call('HGET', K.counts, 'mean:' .. op))
  local mean, keep = sum[1] / sum[2], 0.9 ^ sum[2]
  call('HSET', K.counts, 'mean:' .. op, old and math.floor(old * keep + mean * (1 - keep)) or math.floor(mean))
end

-- Take.
local limitOf = {}
for op, ms in string.gmatch(limits, '([^ =]+)=(%d+)') do limitOf[op] = tonumber(ms) end
local wake = K.wake .. worker
local jobs, started, head = {}, {}, nil
local stopped = call('EXISTS', K.paused) == 1
-- I2: what is taken, or may be brought by BLMOVE, has a lease from the start: a reaper looks at leases only, and so
-- does the count of concurrency. NX: a beat renews, a take does not.
if slots > 0 then call('ZADD', K.leases, 'NX', now, worker) end
local room = slots - call('SCARD', held)
local more = stopped and 3 or 0
if concurrency > 0 and room > 0 then
  local busy = 0
  for _, w in ipairs(call('ZRANGE', K.leases, 0, -1)) do busy = busy + call('SCARD', K.held .. w) end
  if concurrency - busy < room then
    room = concurrency - busy
    if room <= 0 and more == 0 then more = 2 end
  end
end

-- The next id in order: backlog above the default priority, ready, backlog below it.
local default = 35184372088832 -- the score at which priority 5 would begin: (9 - 5) * 2^43
local function next_id()
  if call('ZCARD', K.backlog) > 0 then
    -- one of another priority that was pushed to an empty list stands at its end: put it in its place first
    while true do
      local tail = call('LINDEX', K.ready, -1)
      local f = tail and call('HMGET', K.job .. tail, 'pri', 'n', 's')
      if not (f and f[1]) then break end
      call('RPOP', K.ready)
      if f[3] == 'queued' then to_backlog(tail, f[1], f[2]) else drop(tail) end
    end
    local first = call('ZRANGE', K.backlog, 0, 0, 'WITHSCORES')
    if tonumber(first[2]) < default or call('LLEN', K.ready) == 0 then
      call('ZREM', K.backlog, first[1])
      return first[1]
    end
  end
  return call('RPOP', K.ready)
end

-- Starts one id, or drops its entry when the record is not queued (canceled while listed, or expired).
local function start(id)
  local job = K.job .. id
  local f = call('HMGET', job, 's', 'op', 'p', 'o', 'a', 'g', 'd', 'to', 'c', 'v', 'n', 'pri', 'due', 'w')
  if f[1] ~= 'queued' then return drop(id) end
  local pri = f[12] and tonumber(f[12])
  if pri and pri < 5 and call('LLEN', K.ready) > 0 then
    return to_backlog(id, pri, f[11]) -- it stood in an empty list, and others came since
  end
  local attempt = (tonumber(f[5]) or 0) + 1
  local token = attempt .. '.' .. worker .. '.' .. nonce
  local deadline = now + (tonumber(f[8]) or limitOf[f[2]] or limit)
  call('HSET', job, 's', 'started', 'tok', token, 't', now, 'a', attempt, 'dl', deadline, 'v', (tonumber(f[10]) or 0) + 1)
  if attempt == 1 and not f[6] and not f[7] then observe('w', now - (f[13] or f[9])) end
  if f[14] then call('PUBLISH', 'lh:events', id) end
  started[#started + 1] = id
  if not pri then head = f[11] end
  local n = #jobs
  jobs[n + 1], jobs[n + 2], jobs[n + 3], jobs[n + 4], jobs[n + 5] = id, token, f[2], attempt, f[6] or 0
  jobs[n + 6], jobs[n + 7], jobs[n + 8], jobs[n + 9], jobs[n + 10] = f[7] or 0, deadline, f[9], f[3] or '', f[4] or ''
  room = room - 1
end

local drops = 0
while slots ~= 0 do
  local can = room > 0 and not stopped
  -- the oldest starts first; what goes back goes newest first, so that the oldest is taken first again
  local id = call(can and 'RPOP' or 'LPOP', wake)
  if not id then break end
  if can then
    start(id)
  else
    local f = call('HMGET', K.job .. id, 's', 'pri', 'n')
    if f[1] == 'queued' then push(id, f[2] and tonumber(f[2]), f[3], true) else drop(id) end
  end
end
while room > 0 and not stopped and slots > 0 do
  local before = room
  local id = next_id()
  if not id then break end
  start(id)
  -- bounded: a run of dead entries must not hold Redis; the caller comes again because more = 1
  if room == before then
    drops = drops + 1
    if drops > 500 then break end
  end
end
if #started > 0 then
  call('SADD', held, unpack(started))
  if head then call('HSET', K.counts, 'head', head) end
end
if more == 0 and (call('LLEN', K.ready) > 0 or call('ZCARD', K.backlog) > 0) then more = 1 end
write_tally()
return { verdicts, jobs, more }
