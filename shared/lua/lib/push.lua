--@use base
-- push: puts a queued id where a worker takes it from.
-- Invariants: an id stands at most once over all lists (I7), so call it only for an id that stands in none;
-- a push that finds the list empty goes to the list whatever its priority, so that a blocked BLMOVE wakes;
-- while paused the list is the shelf, where no BLMOVE looks.
local function push(id, pri, seq, near)
  local list = K.ready
  if call('EXISTS', K.paused) == 1 then list = K.shelf end
  if pri and call('LLEN', list) > 0 then
    -- its sequence puts a handed-back job in front of its priority again
    call('ZADD', K.backlog, (9 - pri) * 8796093022208 + seq, id)
  else
    call(near and 'RPUSH' or 'LPUSH', list, id)
  end
end
