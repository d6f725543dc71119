--@use head
-- push: puts a queued id where a worker takes it from.
-- Invariants: an id stands at most once over all lists (I7), so call it only for an id that stands in none;
-- a push that finds the list empty goes to the list whatever its priority, so that a blocked BLMOVE wakes;
-- while paused the list is the shelf, where no BLMOVE looks;
-- a queued id of another priority stands in the list at its taking end only, where next_id (turn.lua) sees it.
local function to_backlog(id, pri, seq)
  call('ZADD', K.backlog, (9 - pri) * 8796093022208 + seq, id)
end

local function push(id, pri, seq, near)
  local list = K.ready
  if call('EXISTS', K.paused) == 1 then list = K.shelf end
  if pri and call('LLEN', list) > 0 then
    return to_backlog(id, pri, seq) -- its sequence puts a handed-back job in front of its priority again
  end
  if near and not pri then
    local tail = call('LINDEX', list, -1)
    local f = tail and call('HMGET', K.job .. tail, 'h', 'pri')
    local h = head_of(f and f[1])
    if h.state == 'queued' and f[2] then
      call('RPOP', list)
      to_backlog(tail, f[2], h.n)
    end
  end
  call(near and 'RPUSH' or 'LPUSH', list, id)
end
