--@use base
-- batch: counts a member's end where the member lies; a requeue takes it back (by = -1).
-- The last one's end in this service rings the channel of events and tells the batch's own record by way of the outbox.
local function in_batch(id, state, by)
  local b = call('HGET', K.job .. id, 'b')
  local batch, misses = K.batch .. b, K.misses .. b
  -- Its counts have expired, or it was given up after this member was canceled: nobody asks any more.
  if call('EXISTS', batch) == 0 then return end
  local left = call('HINCRBY', batch, 'left', -by)
  call('HINCRBY', batch, state, by)
  if state == 'failed' then call(by > 0 and 'SADD' or 'SREM', misses, id) end
  if left == 0 then
    local life = call('HGET', batch, 'life')
    call('HSET', batch, 'e', now)
    call('PEXPIRE', batch, life)
    call('PEXPIRE', misses, life)
    call('ZADD', K.outbox, now, 'b ' .. b)
    call('PUBLISH', CHANNEL.events, b)
  elseif left == 1 and by < 0 then
    call('PERSIST', batch)
    call('PERSIST', misses)
    call('ZADD', K.outbox, now, 'b ' .. b)
  end
end
