--@use tally
--@use batch
--@use head
-- close: makes a record terminal, with whatever else is to be written.
-- rec holds the fields tt, x, w, ef, as far as the record has them, and the head: h, with timing if there is one.
-- The end raises the revision by being one (head.lua).
-- I6: state and TTL change in one step. The end's effects for elsewhere go to the outbox in the same step.
-- I1: a script that closes calls write_ends() at its end; all that ended then enters its index with one command.
local CANCELED = '{"code":"canceled","message":"canceled by request","retryable":false}'

local ends = {}
local function write_ends()
  for state, list in pairs(ends) do
    local again = #list / 2 - call('ZADD', K.ended .. state, unpack(list))
    -- an id that was used before may still stand there
    if again > 0 and state == 'finished' then call('HINCRBY', K.counts, 'struck', again) end
  end
end

local function close(id, rec, state, ttl, ...)
  local job = K.job .. id
  rec.h.state, rec.h.ended = state, rec.timing and stamp .. ' ' .. rec.timing or stamp
  call('HSET', job, 'h', head_text(rec.h), ...)
  local calls = rec.ef and string.find(rec.ef, 'c', 1, true)
  -- a callback needs something to send, so such a record lives for an hour at least
  -- in ms since 1970, as the append-only file wants it
  call('PEXPIREAT', job, text(now + (calls and math.max(rec.tt or ttl, 3600000) or rec.tt or ttl)))
  local list = ends[state] or {}
  ends[state] = list
  local n = #list
  list[n + 1], list[n + 2] = stamp, id
  if rec.x then call('SREM', K.cancels, id) end
  if calls then call('ZADD', K.outbox, now, 'c ' .. id) end
  if rec.ef and string.find(rec.ef, 'b', 1, true) then in_batch(id, state, 1) end
  if rec.w then call('PUBLISH', CHANNEL.events, id) end
  count(state)
end
