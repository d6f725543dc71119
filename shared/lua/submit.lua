--@use tally
--@use record
-- submit: accepts new jobs, each once, however often the script is sent.
--
-- KEYS[1] root
-- ARGV[1] maxQueued  int  jobs that may wait in the service; 0 = no limit
-- ARGV[2] idemTtl    int  ms that an Idempotency-Key is remembered
-- ARGV[3…] repeated: run, id, payload; the latter two as often as run says (lib/record.lua). No id twice, for all are looked up before
--          the first is written
--
-- more may also hold idem and body: hashes of the Idempotency-Key and of what it stands for.
--
-- reply 0 = all are "ok": accepted, now or by an earlier sending of the same id; else flat: place, word, of those that are not
--   "=<id>"      the Idempotency-Key stands for that job; nothing written
--   "conflict"   the Idempotency-Key stands for another body; nothing written
--                A key whose job was erased, or has expired, stands for nothing: it starts this one.
--   "full"       maxQueued reached; nothing written
--
-- I1, I7: record and list entry come in one step, guarded by the record's existence. I9: the key is written with it.
local record, limit = K.job, math.huge
local counts = call('HMGET', K.counts, 'seq', 'ghosts', 'condemned', 'condemnedlater', 'aside')
local seq = tonumber(counts[1]) or 0
if maxQueued > 0 then
  limit = maxQueued - call('LLEN', K.ready) - call('LLEN', K.shelf) - call('ZCARD', K.backlog) - call('ZCARD', K.scheduled)
    + (counts[2] or 0) - (counts[3] or 0) - (counts[4] or 0) - (counts[5] or 0)
end
local odd, fresh, listed, last, at, jobs = {}, 0, 0, #ARGV, rest, 0
-- Made with room for all of them: a table that grows is hashed anew each time.
local records, plain = { unpack(ARGV, 1, last / 2) }, { unpack(ARGV, 1, last / 2) }
while at < last do
  local ends = at + 2 * string.match(ARGV[at], '^%d+')
  for place = at + 1, ends, 2 do jobs, records[jobs + 1] = jobs + 1, record .. ARGV[place] end
  at = ends + 1
end
-- One look for all of them: mostly none is here yet.
local repeated = call('EXISTS', unpack(records, 1, jobs)) > 0
local push_one -- made for the first job of another priority
local function push_other(id, pri, n)
  if not push_one then
    --@use push
    push_one = push
  end
  push_one(id, pri, n, false)
end
at, jobs = rest, 0
while at < last do
  local n, more = run_of(ARGV[at])
  for place = at + 1, at + 2 * n, 2 do
    local id = ARGV[place]
    jobs = jobs + 1
    local known = more.idem and call('GET', K.idem .. more.idem)
    local other, body = string.match(known or '', '^(%S+) (.*)$')
    if other and other ~= id and call('EXISTS', record .. other) == 1 then
      local word = body == more.body and '=' .. other or 'conflict'
      odd[#odd + 1], odd[#odd + 2] = jobs, word
    elseif repeated and call('EXISTS', records[jobs]) == 1 then
      -- it is here: nothing to write
    elseif fresh >= limit then
      odd[#odd + 1], odd[#odd + 2] = jobs, 'full'
    else
      local later, seq_of_it = more.due and more.due > now, seq + fresh + 1
      write_record(records[jobs], ARGV[place + 1], more, later and 'scheduled' or 'queued', seq_of_it)
      if later then
        call('ZADD', K.scheduled, more.due, id)
      elseif more.pri then
        push_other(id, more.pri, seq_of_it)
      else
        listed, plain[listed + 1] = listed + 1, id
      end
      if more.idem then call('SET', K.idem .. more.idem, id .. ' ' .. more.body, 'PX', idemTtl) end
      fresh = fresh + 1
    end
  end
  at = at + 2 * n + 1
end
if listed > 0 then call('LPUSH', call('EXISTS', K.paused) == 1 and K.shelf or K.ready, unpack(plain, 1, listed)) end
if fresh > 0 then
  call('HSET', K.counts, 'seq', text(seq + fresh))
  count('submitted', fresh)
end
write_tally()
return #odd > 0 and odd or 0 -- a number is answered from the connection's own buffer, a table is not
