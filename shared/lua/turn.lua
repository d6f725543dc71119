--@flags allow-oom
--@use push
--@use drop
--@use close
--@use head
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
--   how             "token kind ttl started op extra": ttl in ms, the life of a terminal record; started and op as the reply
--                   gave them, so that a common job is settled without taking its head apart; "0 -" = not known. "" = as the one before
--   finish          note  "first,last" ms of the answer · body the result · extra "" or "size type": size bytes in a file,
--                   else inline; type "" = JSON
--   else            note  JSON of the ended attempt, "" = none · body JSON of the error · extra delay, ms
--   kind: finish     terminal, with the result
--         fail       terminal, with the error
--         retry      an attempt spent: again after delay, at the far end
--         redeliver  no verdict: again after delay, at the taking end, counted; above poison it fails
--         return     handed back, at the taking end, no attempt and no redelivery spent
--
-- reply { odd, jobs, more, started }
--   odd   flat: place among the settles, verdict, of those that are not "ok" (done, now or by an earlier sending of the token):
--         "lost" the token is not ours: nothing written, drop the work; "gone" no such record
--   jobs  flat, three texts a job: id; "created op attempt run redeliveries deadline", and after a line end its options, if
--         any, "" = as of the job before; payload. The token is attempt.worker.nonce
--   more  1 = the queue still has jobs; 2 = concurrency is reached; 3 = paused; 0 = empty
--   started  ms, of all jobs of this reply
--
-- It is told slots and counts what is held itself, so that a repeated call cannot overfill (rule 2).
-- Invariant: an id leaves held in the step that changes the state, so a crash on either side repeats a job and never
-- loses one.
local held = K.held .. worker
local odd, leaving = {}, {}

-- Another try, later or at once. job: id, h, rev, pri, w.
local function again(job, delay, near, ...)
  local id, key, h = job.id, job.key, job.h
  h.state, h.more = delay > 0 and 'scheduled' or 'queued', 1
  if delay > 0 then
    call('HSET', key, 'h', head_text(h), 'due', now + delay, 'v', job.rev + 1, ...)
    if near then call('HSET', key, 'nr', 1) end
    call('ZADD', K.scheduled, now + delay, id)
  else
    call('HSET', key, 'h', head_text(h), 'v', job.rev + 1, ...)
    push(id, job.pri, h.n, near)
  end
  if job.w then call('PUBLISH', 'lh:events', id) end
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

local function how_of(text)
  local how = {}
  how.token, how.kind, how.ttl, how.began, how.op, how.extra = string.match(' ' .. text, '^( %S+) (%l+) (%d+) (%d+) (%S+) (.*)$')
  how.short = how.kind == 'finish' and how.op ~= '-' and how.extra == ''
  how.till, how.n = until_after(how.ttl), 0
  return how
end

local how
local finished = ends.finished
-- Common jobs of one how that were finished here, counted at once.
local function tell_how()
  if not how or how.n == 0 then return end
  observe(how.op, now - how.began, how.n)
  count('finished', how.n)
end

local ended = '|' .. stamp .. ' '
local function settle(at)
  if ARGV[at + 1] ~= '' then
    tell_how()
    how = how_of(ARGV[at + 1])
  end
  local id, note, body = ARGV[at], ARGV[at + 2], ARGV[at + 3]
  local token, kind = how.token, how.kind
  local key = K.job .. id
  local was = call('HGET', key, 'h')
  if not was then
    leaving[#leaving + 1] = id
    return 'gone'
  end
  -- It begins with a digit and ends with the token: common, and started by us. What close does, for such a job.
  if how.short and byte(was) <= 57 and find(was, token, -#token, true) then
    call('HSET', key, 'h', was .. ended .. note, 'r', body)
    call('PEXPIREAT', key, how.till)
    local n = #finished
    finished[n + 1], finished[n + 2] = stamp, id
    leaving[#leaving + 1], how.n = id, how.n + 1
    return 'ok'
  end
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
  local ttl = how.ttl
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
tell_how()
if #leaving > 0 then call('SREM', held, unpack(leaving)) end

-- Take.
local limitOf = {}
for op, ms in string.gmatch(limits, '([^ =]+)=(%d+)') do limitOf[op] = tonumber(ms) end
local wake = K.wake .. worker
local jobs, started, head = {}, {}, nil
local stopped = call('EXISTS', K.paused) == 1
-- I2: what is taken, or may be brought by BLMOVE, has a lease from the start: a reaper looks at leases only, and so
-- does the count of concurrency. NX: a beat renews, a take does not.
if slots > 0 then call('ZADD', K.leases, 'NX', now, worker) end
-- Bounded: a script must not hold Redis for long, and unpack takes some 8,000 values. Who has more room comes again.
local room = math.min(slots - call('SCARD', held), 1000)
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
    local f = tail and call('HMGET', K.job .. tail, 'h', 'pri')
    if not (f and f[2]) then break end
    call('RPOP', K.ready)
    local h = head_of(f[1])
    if h.state == 'queued' then to_backlog(tail, f[2], h.n) else drop(tail) end
  end
  local first = call('ZRANGE', K.backlog, 0, 0, 'WITHSCORES')
  if tonumber(first[2]) < default or call('LLEN', K.ready) == 0 then
    call('ZREM', K.backlog, first[1])
    return { first[1] }
  end
  return { call('RPOP', K.ready) }
end

local takes = '.' .. worker .. '.' .. nonce
local told
local function took(id, text, payload)
  local n = #jobs
  started[#started + 1] = id
  jobs[n + 1], jobs[n + 2], jobs[n + 3] = id, text == told and '' or text, payload or ''
  told = text
  room = room - 1
end
-- Of the common job before: its " created op", what it became, what was told of it; and how many such jobs there were.
local tail, start_text, told_text, wait, alike = '|', nil, nil, 0, 0
local function tell_waits()
  if alike > 0 then observe(':wait', wait, alike) end
  alike = 0
end

-- A job that is not common, see start.
local function start_other(id, key, h, payload, others)
  if h.state ~= 'queued' then return drop(id) end
  local f = call('HMGET', key, 'pri', 'to', 'o', 'w', 'a', 'g', 'd', 'due', 'v')
  local pri = f[1] and tonumber(f[1])
  if pri and pri < 5 and (others or call('LLEN', K.ready) > 0) then
    return to_backlog(id, pri, h.n) -- it stood in an empty list, and others came since
  end
  local deadline = text(now + (f[2] or limitOf[h.op] or limitMs))
  local attempt = text((tonumber(f[5]) or 0) + 1)
  h.start = stamp .. ' ' .. deadline .. ' ' .. text(rev_of(h, f[9]) + 1) .. ' ' .. attempt .. takes
  h.state = 'started'
  call('HSET', key, 'h', head_text(h))
  if attempt == '1' and not f[6] and not f[7] then observe(':wait', now - (f[8] or h.created)) end
  if f[4] then call('PUBLISH', 'lh:events', id) end
  took(id, h.created .. ' ' .. h.op .. ' ' .. attempt .. ' ' .. (f[6] or '0') .. ' ' .. (f[7] or '0') .. ' ' .. deadline
    .. (f[3] and '\n' .. f[3] or ''), payload)
  if not pri then head = h.n end
end

-- Starts one id, or drops its entry when the record is not queued (canceled while listed, or expired).
-- others: more ids that were popped from the list after it
local function start(id, others)
  local key = K.job .. id
  local f = call('HMGET', key, 'h', 'p')
  local was = f[1]
  -- It begins with a digit and ends like the one before, which had no "|": common, and queued.
  if not (was and byte(was) <= 57 and find(was, tail, -#tail, true)) then
    local like, created, op = string.match(was or '', '^%d+( (%d+) ([^|]+))$')
    if not like then return start_other(id, key, head_of(was), f[2], others) end
    tell_waits()
    local deadline = text(now + (limitOf[op] or limitMs))
    tail, wait = like, now - created
    start_text = '|' .. stamp .. ' ' .. deadline .. ' 1 1' .. takes
    told_text = created .. ' ' .. op .. ' 1 0 0 ' .. deadline
  end
  call('HSET', key, 'h', was .. start_text)
  alike = alike + 1
  took(id, told_text, f[2])
  head = was
end

while slots ~= 0 do
  local can = room > 0 and not stopped
  -- the oldest starts first; what goes back goes newest first, so that the oldest is taken first again
  local id = call(can and 'RPOP' or 'LPOP', wake)
  if not id then break end
  if can then
    start(id)
  else
    local f = call('HMGET', K.job .. id, 'h', 'pri')
    local h = head_of(f[1])
    if h.state == 'queued' then push(id, f[2] and tonumber(f[2]), h.n, true) else drop(id) end
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
  if head then call('HSET', K.counts, 'head', string.match(head, '^%d+')) end
end
if more == 0 and (call('LLEN', K.ready) > 0 or call('ZCARD', K.backlog) > 0) then more = 1 end
tell_waits()
write_ends()
write_tally()
return { odd, jobs, more, now }
