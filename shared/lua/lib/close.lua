--@use tally
--@use batch
-- close: makes a record terminal, with whatever else is to be written.
-- rec holds the fields v, tt, x, w, ef, as far as the record has them.
-- I6: state and TTL change in one step. The end's effects for elsewhere go to the outbox in the same step.
local CANCELED = '{"code":"canceled","message":"canceled by request","retryable":false}'

local function close(id, rec, state, ttl, ...)
  local job = K.job .. id
  call('HSET', job, 's', state, 'e', now, 'v', (rec.v or 0) + 1, ...)
  local calls = rec.ef and string.find(rec.ef, 'c', 1, true)
  -- a callback needs something to send, so such a record lives for an hour at least
  call('PEXPIRE', job, calls and math.max(rec.tt or ttl, 3600000) or rec.tt or ttl)
  call('ZADD', K.ended .. state, now, id)
  if rec.x then call('SREM', K.cancels, id) end
  if calls then call('ZADD', K.outbox, now, 'c ' .. id) end
  if rec.ef and string.find(rec.ef, 'b', 1, true) then in_batch(id, state, 1) end
  if rec.w then call('PUBLISH', 'lh:events', id) end
  count(state)
end
