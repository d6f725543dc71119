--@flags allow-oom
--@use push
--@use drop
--@use close
--@use attempt
-- turn: settles what a worker has done and takes what it has room for, in one round trip.
--
-- KEYS[1] root
-- ARGV[1] worker       text
-- ARGV[2] slots        int   jobs that the worker may hold in this service; 0 = take nothing;
--                            -1 = take nothing and hand back what BLMOVE brought
-- ARGV[3] concurrency  int   jobs that all workers together may hold; 0 = no limit
-- ARGV[4] nonce        text  random, new for each call: the last part of the tokens given
-- ARGV[5] limitMs      int   ms, the time limit of an operation that ARGV[6] does not name
-- ARGV[6] limits       text  "op=ms op=ms"
-- ARGV[7] poison       int   redeliveries that a run may have
-- ARGV[8…] repeated, settles: id, how, note, body
--   how             "token kind ttl extra": ttl in ms, the life of a terminal record
--   finish          note  "first,last" ms of the answer · body the result · extra "" or "size type": size bytes in a file,
--                   else inline; type "" = JSON
--   else            note  JSON of the ended attempt, "" = none · body JSON of the error · extra delay, ms
--   kind: finish     terminal, with the result
--         fail       terminal, with the error
--         retry      an attempt spent: again after delay, at the far end
--         redeliver  no verdict: again after delay, at the taking end, counted; above poison it fails
--         return     handed back, at the taking end, no attempt and no redelivery spent
--
-- reply { odd, jobs, more }
--   odd   flat: place among the settles, verdict, of those that are not "ok" (done, now or by an earlier sending of the token):
--         "lost" the token is not ours: nothing written, drop the work; "gone" no such record
--   jobs  one text a job: "id op attempt run redeliveries deadline created", options ("" = none), payload, each on a line of
--         its own; the token is attempt.worker.nonce
--   more      1 = the queue still has jobs; 2 = concurrency is reached; 3 = paused; 0 = empty
--
-- It is told slots and counts what is held itself, so that a repeated call cannot overfill (rule 2).
-- Invariant: an id leaves held in the step that changes the state, so a crash on either side repeats a job and never
-- loses one.
local held = K.held .. worker
local odd, leaving = {}, {}
local runs, ran = {}, {} -- by operation: ms of the runs that end here, and how many
local NONE = {}
local hows = {} -- jobs of one turn that end alike have the same text

-- Another try, later or at once. job: id, rev, n, pri, w.
local function again(job, delay, near, ...)
  local id, key = job.id, K.job .. job.id
  if delay > 0 then
    call('HSET', key, 's', 'scheduled', 'due', now + delay, 'z', 1, 'v', job.rev + 1, ...)
    if near then call('HSET', key, 'nr', 1) end
    call('ZADD', K.scheduled, now + delay, id)
  else
    call('HSET', key, 's', 'queued', 'z', 1, 'v', job.rev + 1, ...)
    push(id, job.pri, job.n, near)
  end
  if job.w then call('PUBLISH', 'lh:events', id) end
end

local function finish(id, job, op, run, ttl, note, body, extra)
  observe('r', run)
  runs[op] = (runs[op] or 0) + run
  ran[op] = (ran[op] or 0) + 1
  if extra == '' then return close(id, job, 'finished', ttl, 'tm', note, 'r', body) end
  local size, type = string.match(extra, '^(%d*) (.*)$')
  local set = size ~= '' and { 'rf', size } or { 'r', body }
  if type ~= '' then
    set[3], set[4] = 'rt', type
  end
  close(id, job, 'finished', ttl, 'tm', note, unpack(set))
end

local function settle(at)
  local id, note, body, how = ARGV[at], ARGV[at + 2], ARGV[at + 3], hows[ARGV[at + 1]]
  if not how then
    how = { string.match(' ' .. ARGV[at + 1], '^( %S+) (%l+) (%d+) (.*)$') }
    hows[ARGV[at + 1]] = how
  end
  local token, kind, ttl, extra = how[1], how[2], how[3], how[4]
  local key = K.job .. id
  local f = call('HMGET', key, 's', 'k', 'z', 'op')
  local k = f[2]
  if not f[1] then
    leaving[#leaving + 1] = id
    return 'gone'
  end
  if not k or string.sub(k, -#token) ~= token then
    count('stale')
    return 'lost' -- I4: another attempt's token changes nothing
  end
  if f[1] ~= 'started' then return 'ok' end
  leaving[#leaving + 1] = id
  local plain = kind == 'finish' and not f[3]
  local g = plain and NONE or call('HMGET', key, 'x', 'w', 'ef', 'tt', 'd', 'n', 'pri', 'log', 'v')
  local job = plain and NONE or { id = id, x = g[1], w = g[2], ef = g[3], tt = g[4], n = tonumber(g[6]), pri = tonumber(g[7] or nil) }
  if kind == 'finish' and not job.x then
    -- k begins with it; a pattern would cost more than all the rest of this line
    finish(id, job, f[4], now - string.sub(k, 1, string.find(k, ' ', 1, true) - 1), ttl, note, body, extra)
    return 'ok'
  end
  local started, _, _, _, attempt = attempt_of(k)
  local redeliveries = tonumber(g[5]) or 0
  job.rev = rev_of(f[1], g[9], k)
  if kind == 'finish' then
    note = string.format('{"attempt":%d,"worker":"%s","started":%s,"ended":%s,"outcome":"finished"}', attempt, worker, started, stamp)
  end
  local log = g[8] and note ~= '' and g[8] .. '\n' .. note or g[8] or note
  if #log > 16384 then log = string.sub(log, (string.find(log, '\n', #log - 12288, true) or 0) + 1) end
  local delay = tonumber(extra) or 0
  if job.x then
    -- a cancel that was asked for wins over whatever the call came to (rule 8)
    close(id, job, 'canceled', ttl, 'a', attempt, 'log', log, 'err', CANCELED)
  elseif kind == 'fail' then
    close(id, job, 'failed', ttl, 'err', body, 'log', log)
  elseif kind == 'retry' then
    count('retried')
    again(job, delay, false, 'a', attempt, 'log', log)
  elseif kind == 'redeliver' then
    if redeliveries >= poison then
      count('poison')
      close(id, job, 'failed', ttl, 'err', body, 'log', log, 'd', redeliveries + 1)
    else
      count('redelivered')
      again(job, delay, true, 'log', log, 'd', redeliveries + 1, 'a', attempt - 1)
    end
  else
    count('returned')
    again(job, delay, true, 'a', attempt - 1)
  end
  return 'ok'
end

local index = 0
for at = rest, #ARGV, 4 do
  index = index + 1
  local verdict = settle(at)
  if verdict ~= 'ok' then odd[#odd + 1], odd[#odd + 2] = index, verdict end
end
if #leaving > 0 then call('SREM', held, unpack(leaving)) end
for op, n in pairs(ran) do
  -- a mean that forgets: after n more runs the old one weighs 0.9^n
  local old = tonumber(call('HGET', K.counts, 'mean:' .. op))
  local mean, keep = runs[op] / n, 0.9 ^ n
  call('HSET', K.counts, 'mean:' .. op, text(math.floor(old and old * keep + mean * (1 - keep) or mean)))
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
local heads, tails = {}, {} -- by time limit: what the jobs of this call share is put together once
local function start(id, others)
  local key = K.job .. id
  local f = call('HMGET', key, 's', 'z', 'op', 'c', 'p')
  if f[1] ~= 'queued' then return drop(id) end
  local op, created = f[3], f[4]
  local g = f[2] and call('HMGET', key, 'pri', 'to', 'o', 'w', 'a', 'g', 'd', 'due', 'v', 'k') or NONE
  local pri = g[1] and tonumber(g[1])
  if pri and pri < 5 and (others or call('LLEN', K.ready) > 0) then
    return to_backlog(id, pri, call('HGET', key, 'n')) -- it stood in an empty list, and others came since
  end
  local ms = g[2] or limitOf[op] or limitMs
  if not tails[ms] then
    tails[ms] = ' ' .. text(now + ms) .. ' '
    heads[ms] = stamp .. tails[ms] .. '1 1' .. takes -- of a record that was not touched since it was submitted
  end
  local told
  if f[2] then
    local attempt = text((tonumber(g[5]) or 0) + 1)
    call('HSET', key, 's', 'started', 'k', stamp .. tails[ms] .. text(rev_of(f[1], g[9], g[10]) + 1) .. ' ' .. attempt .. takes)
    if attempt == '1' and not g[6] and not g[7] then observe('w', now - (g[8] or created)) end
    if g[4] then call('PUBLISH', 'lh:events', id) end
    told = ' ' .. attempt .. ' ' .. (g[6] or '0') .. ' ' .. (g[7] or '0') .. tails[ms] .. created .. '\n' .. (g[3] or '') .. '\n'
  else
    call('HSET', key, 's', 'started', 'k', heads[ms])
    observe('w', now - created)
    told = ' 1 0 0' .. tails[ms] .. created .. '\n\n'
  end
  started[#started + 1] = id
  jobs[#jobs + 1] = id .. ' ' .. op .. told .. (f[5] or '')
  if not pri then head = id end
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
return { odd, jobs, more }
