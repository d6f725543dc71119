--@flags allow-oom
--@use tally
-- turn: settles what a worker has done and takes what it has room for, in one round trip.
--
-- KEYS[1] root
-- ARGV[1] worker       text
-- ARGV[2] slots        int   jobs that the worker may hold in this service; 0 = take nothing;
--                            -1 = take nothing and hand back what BLMOVE brought
-- ARGV[3] concurrency  int   jobs that all workers together may hold; 0 = no limit
-- ARGV[4] nonce        text  random, new for each call: the last part of the tokens given
-- ARGV[5] limits       text  "op=ms op=ms": the operations that this worker can run, and their time limits
-- ARGV[6] poison       int   redeliveries that a run may have
-- ARGV[7…] repeated, settles: how, id, note, body; the latter three as often as how says
--   how             "n token kind ttl started op extra": for the n settles after it; ttl in ms, the life of a terminal record; started
--                   and op as the reply gave them, so that a common job is settled without taking its head apart; "0 -" = not known
--   finish          note  "first,last" ms of the answer · body the result · extra "" or "size type": size bytes in a file,
--                   else inline; type "" = JSON
--   else            note  JSON of the ended attempt, "" = none · body JSON of the error · extra delay, ms
--   fail            also extra "k<size> <type>": an unreadable answer is kept, in a file of size bytes, or after a line end of body
--   kind: finish     terminal, with the result
--         fail       terminal, with the error
--         retry      an attempt spent: again after delay, at the far end
--         redeliver  no verdict: again after delay, at the taking end, counted; above poison it fails
--         return     handed back, at the taking end, no attempt and no redelivery spent
--
-- reply { odd, jobs, more, started }
--   odd   flat: place among the settles, verdict, of those that are not "ok" (done, now or by an earlier sending of the token):
--         "canceled" done, but a cancel had been asked for; "failed" done, and the redelivery was one too many
--         "lost" the token is not ours: nothing written, drop the work; "gone" no such record
--   jobs  flat: id, payload; and before those that share it, known by its space in front: " created op attempt run redeliveries
--         deadline", and after a line end the options, if any. The token is attempt.worker.nonce
--   more  1 = the queue still has jobs; 2 = concurrency is reached; 3 = paused; 0 = empty
--   started  ms, of all jobs of this reply
--
-- A job whose operation `limits` does not name is not given to this worker: it is set aside for one that does (lib/aside.lua).
-- It is told slots and counts what is held itself, so that a repeated call cannot overfill (rule 2).
-- Invariant: an id leaves held in the step that changes the state, so a crash on either side repeats a job and never
-- loses one.
local held, wake, record = K.held .. worker, K.wake .. worker, K.job
local odd, leaving, finished = {}, {}, {}
local jobs, started, head, room = {}, {}, nil, 0

local takes = '.' .. worker .. '.' .. nonce
local told
local function took(id, text, payload)
  if text ~= told then told, jobs[#jobs + 1] = text, text end
  local n = #jobs
  started[#started + 1], jobs[n + 1], jobs[n + 2] = id, id, payload or ''
  room = room - 1
end

-- The time limit of an operation; nil = this worker does not know it.
local function limit_of(op)
  local _, at = find(' ' .. limits, ' ' .. op .. '=', 1, true)
  return at and string.match(limits, '^%d+', at)
end

-- What a job needs that is not common; made for the first of them.
local rare
local function others()
  if not rare then
    --@use others
    rare = { settle = settle, start = start, asides = asides, next_ids = next_ids, hand_back = hand_back, write_ends = write_ends }
  end
  return rare
end

local how
local function how_of(words)
  local size, token, kind, ttl, began, op, extra = string.match(words, '^(%d+)( %S+) (%l+) (%d+) (%d+) (%S+) (.*)$')
  local short = kind == 'finish' and op ~= '-' and extra == ''
  local till = text(now + ttl) -- in ms since 1970, as the append-only file wants it
  return { size = size, token = token, kind = kind, ttl = ttl, began = began, op = op, extra = extra, short = short, till = till, n = 0 }
end

-- Common jobs of one how that were finished here, counted at once.
local function tell_how()
  if how.n == 0 then return end
  observe(how.op, now - how.began, how.n)
  count('finished', how.n)
end

local ended = '|' .. stamp .. ' '
local function settle(at)
  local id, note, body = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local token = how.token
  local key = record .. id
  local was = call('HGET', key, 'h')
  if not was then
    leaving[#leaving + 1] = id
    return 'gone'
  end
  -- It begins with a digit and ends with the token: common, and started by us. What close does, for such a job.
  if how.short and byte(was) <= 57 and find(was, token, -#token, true) then
    call('HSET', key, 'h', was .. ended .. note, 'r', body)
    call('PEXPIREAT', key, how.till)
    finished[#finished + 1] = id
    leaving[#leaving + 1], how.n = id, how.n + 1
    return 'ok'
  end
  return others().settle(id, key, was, how, note, body)
end

local index, at, last = 0, rest, #ARGV
while at < last do
  how = how_of(ARGV[at])
  local ends = at + 3 * how.size
  for place = at + 1, ends, 3 do
    index = index + 1
    local verdict = settle(place)
    if verdict ~= 'ok' then odd[#odd + 1], odd[#odd + 2] = index, verdict end
  end
  tell_how()
  at = ends + 1
end
if #leaving > 0 then call('SREM', held, unpack(leaving)) end

-- Take.
-- One look for both, as there mostly is neither.
local stopped, aside = call('EXISTS', K.paused, K.asides) > 0, nil
if stopped then
  stopped, aside = call('EXISTS', K.paused) == 1, others().asides()
end
-- I2: what is taken, or may be brought by BLMOVE, has a lease from the start: a reaper looks at leases only, and so
-- does the count of concurrency. NX: a beat renews, a take does not.
if slots > 0 then call('ZADD', K.leases, 'NX', stamp, worker) end
-- Bounded: a script must not hold Redis for long, and unpack takes some 8,000 values. Who has more room comes again.
room = math.min(slots - call('SCARD', held), 1000)
local more = stopped and 3 or 0
if concurrency > 0 and room > 0 then
  local busy = 0
  for _, w in ipairs(call('ZRANGE', K.leases, 0, -1)) do busy = busy + call('SCARD', K.held .. w) end
  if concurrency - busy < room then
    room = concurrency - busy
    if room <= 0 and more == 0 then more = 2 end
  end
end

-- Of the common job before: its " created op", what it became, what was told of it; and how many such jobs there were.
local tail, start_text, told_text, wait, alike = '|', nil, nil, 0, 0
local function tell_waits()
  if alike > 0 then observe(':wait', wait, alike) end
  alike = 0
end

-- Starts one id, or drops its entry when the record is not queued (canceled while listed, or expired).
-- more_ids: others were popped from the list after it
local function start(id, more_ids)
  local key = record .. id
  local f = call('HMGET', key, 'h', 'p')
  local was = f[1]
  -- It begins with a digit and ends like the one before, which had no "|": common, and queued.
  if not (was and byte(was) <= 57 and find(was, tail, -#tail, true)) then
    local like, created, op = string.match(was or '', '^%d+( (%d+) ([^|]+))$')
    local limit = like and limit_of(op)
    if not limit then return others().start(id, key, was, f[2], more_ids) end
    tell_waits()
    local deadline = text(now + limit)
    tail, wait = like, now - created
    start_text = '|' .. stamp .. ' ' .. deadline .. ' 1 1' .. takes
    told_text = ' ' .. created .. ' ' .. op .. ' 1 0 0 ' .. deadline
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
  if can then start(id) else others().hand_back(id) end
end
-- bounded: a run of dead entries must not hold Redis; the caller comes again because more = 1
local looks, empty = slots + 500, false
while room > 0 and not stopped and slots > 0 and looks > 0 do
  local most, ids = room, nil
  if aside and #aside == 0 then aside = nil end
  if not aside and call('ZCARD', K.backlog) == 0 then
    ids = call('RPOP', K.ready, most) or {}
    for i, id in ipairs(ids) do start(id, i < #ids) end
  else
    local before, was_aside = head, nil
    ids, was_aside = others().next_ids(aside or {})
    if ids[1] then start(ids[1]) end
    if was_aside then head = before end -- the queue's head is further on
  end
  looks = looks - #ids
  empty = #ids < most and not rare -- nothing here has put an entry back
  if empty or #ids == 0 then break end
end
if #started > 0 then
  call('SADD', held, unpack(started))
  if head then call('HSET', K.counts, 'head', string.match(head, '^%d+')) end
end
if more == 0 and not empty and (aside and #aside > 0 or call('LLEN', K.ready) > 0 or call('ZCARD', K.backlog) > 0) then more = 1 end
tell_waits()
local entries = { stamp, finished[1] }
for i = 1, #finished > 1 and #finished or 0, 32 do -- see lib/entry.lua; not more, for what strikes one of them writes the others anew
  local n = (i - 1) / 16
  entries[n + 1], entries[n + 2] = stamp, nonce .. i .. ' ' .. table.concat(finished, ' ', i, math.min(i + 31, #finished))
end
-- 0: an id that was used before still stands there. In an entry of many it stands twice then, for its life.
if #finished > 0 and call('ZADD', K.ended .. 'finished', unpack(entries)) == 0 then call('HINCRBY', K.counts, 'struck', 1) end
if rare then rare.write_ends() end
write_tally()
return { odd, jobs, more, now }
