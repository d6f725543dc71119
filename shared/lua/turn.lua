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
-- ARGV[8…] repeated, settles: id, token, kind, ttl (ms, life of a terminal record), note, body, extra
--   finish          note  "first,last" ms of the answer · body the result · extra "" or "size type": size bytes in a file,
--                   else inline; type "" = JSON
--   else            note  JSON of the ended attempt, "" = none · body JSON of the error · extra delay, ms
--   kind: finish     terminal, with the result
--         fail       terminal, with the error
--         retry      an attempt spent: again after delay, at the far end
--         redeliver  no verdict: again after delay, at the taking end, counted; above poison it fails
--         return     handed back, at the taking end, no attempt and no redelivery spent
--
-- reply { verdicts, jobs, more }
--   verdicts  one a settle: "ok" done, now or by an earlier sending of the same token; "lost" the token is not ours:
--             nothing written, drop the work; "gone" no such record
--   jobs      flat: id, "op attempt run redeliveries deadline created", payload, options ("" = none);
--             the token is attempt.worker.nonce
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
  local id, kind, ttl, note, body, extra = ARGV[at], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5], ARGV[at + 6]
  local job = K.job .. id
  local f = call('HMGET', job, 's', 'tok', 'v', 'x', 'w', 'ef', 'tt', 't', 'op')
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
  local rec = { v = tonumber(f[3]) or 0, x = f[4], w = f[5], ef = f[6], tt = f[7] }
  if kind == 'finish' and not rec.x then
    local run = now - f[8]
    observe('r', run)
    local mean = means[f[9]] or { 0, 0 }
    means[f[9]] = { mean[1] + run, mean[2] + 1 }
    if extra == '' then
      close(id, rec, 'finished', ttl, 'tm', note, 'r', body)
    else
      local size, type = string.match(extra, '^(%d*) (.*)$')
      local set = size ~= '' and { 'rf', size } or { 'r', body }
      if type ~= '' then
        set[3], set[4] = 'rt', type
      end
      close(id, rec, 'finished', ttl, 'tm', note, unpack(set))
    end
    return 'ok'
  end
  local g = call('HMGET', job, 'a', 'd', 'n', 'pri', 'log')
  local attempt, redeliveries = tonumber(g[1]) or 1, tonumber(g[2]) or 0
  rec.n, rec.pri = tonumber(g[3]), g[4] and tonumber(g[4])
  if kind == 'finish' then
    note = string.format('{"attempt":%d,"worker":"%s","started":%s,"ended":%s,"outcome":"finished"}', attempt, worker, f[8], stamp)
  end
  local log = g[5] and note ~= '' and g[5] .. '\n' .. note or g[5] or note
  if #log > 16384 then log = string.sub(log, (string.find(log, '\n', #log - 12288, true) or 0) + 1) end
  local delay = tonumber(extra) or 0
  if rec.x then
    -- a cancel that was asked for wins over whatever the call came to (rule 8)
    close(id, rec, 'canceled', ttl, 'log', log, 'err', CANCELED)
  elseif kind == 'fail' then
    close(id, rec, 'failed', ttl, 'err', body, 'log', log)
  elseif kind == 'retry' then
    count('retried')
    again(id, rec, delay, false, 'log', log)
  elseif kind == 'redeliver' then
    if redeliveries >= poison then
      count('poison')
      close(id, rec, 'failed', ttl, 'err', body, 'log', log, 'd', redeliveries + 1)
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
for at = rest, #ARGV, 7 do
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

-- The next ids in order, up to `most`: backlog above the default priority, ready, backlog below it.
local default = 35184372088832 -- the score at which priority 5 would begin: (9 - 5) * 2^43
local function next_ids(most)
  if call('ZCARD', K.backlog) == 0 then return call('RPOP', K.ready, most) or {} end
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
    return { first[1] }
  end
  return { call('RPOP', K.ready) }
end

-- Starts one id, or drops its entry when the record is not queued (canceled while listed, or expired).
-- others: more ids that were popped from the list after it
local takes = '.' .. worker .. '.' .. nonce
local deadlines = {}
local function start(id, others)
  local job = K.job .. id
  local f = call('HMGET', job, 's', 'op', 'p', 'c', 'v', 'pri', 'to', 'o', 'w')
  if f[1] ~= 'queued' then return drop(id) end
  local pri, op = f[6] and tonumber(f[6]), f[2]
  if pri and pri < 5 and (others or call('LLEN', K.ready) > 0) then
    return to_backlog(id, pri, call('HGET', job, 'n')) -- it stood in an empty list, and others came since
  end
  -- without a revision it has never been touched since it was submitted
  local g = f[5] and call('HMGET', job, 'a', 'g', 'd', 'due') or {}
  local attempt = (tonumber(g[1]) or 0) + 1
  local ms = f[7] or limitOf[op] or limit
  local deadline = deadlines[ms]
  if not deadline then
    deadline = string.format('%.0f', now + ms)
    deadlines[ms] = deadline
  end
  call('HSET', job, 's', 'started', 'tok', attempt .. takes, 't', stamp, 'a', attempt, 'dl', deadline, 'v', (tonumber(f[5]) or 0) + 1)
  if attempt == 1 and not g[2] and not g[3] then observe('w', now - (g[4] or f[4])) end
  if f[9] then call('PUBLISH', 'lh:events', id) end
  started[#started + 1] = id
  if not pri then head = id end
  local n = #jobs
  jobs[n + 1] = id
  jobs[n + 2] = op .. ' ' .. attempt .. ' ' .. (g[2] or 0) .. ' ' .. (g[3] or 0) .. ' ' .. deadline .. ' ' .. f[4]
  jobs[n + 3], jobs[n + 4] = f[3] or '', f[8] or ''
  room = room - 1
end

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
-- bounded: a run of dead entries must not hold Redis; the caller comes again because more = 1
local looks = slots + 500
while room > 0 and not stopped and slots > 0 and looks > 0 do
  local ids = next_ids(room)
  if #ids == 0 then break end
  for i, id in ipairs(ids) do start(id, i < #ids) end
  looks = looks - #ids
end
if #started > 0 then
  call('SADD', held, unpack(started))
  if head then call('HSET', K.counts, 'head', call('HGET', K.job .. head, 'n')) end
end
if more == 0 and (call('LLEN', K.ready) > 0 or call('ZCARD', K.backlog) > 0) then more = 1 end
write_ends()
write_tally()
return { verdicts, jobs, more }
