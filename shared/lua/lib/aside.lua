--@use base
-- aside: queued jobs whose operation was unknown to the worker that met them. They wait by operation, scored as in the backlog.
-- A worker that names the operation takes them in the order of priority and sequence (others.lua).
-- Invariants: an id stands aside or in another list, never in both (I7). K.asides names each operation that has such jobs, and
-- counts.aside is their number.
local function set_aside(id, op, pri, seq)
  call('ZADD', K.aside .. op, (9 - (pri or 5)) * 8796093022208 + seq, id)
  call('SADD', K.asides, op)
  call('HINCRBY', K.counts, 'aside', 1)
end

-- Returns whether it stood there.
local function strike_aside(id, op)
  if call('ZREM', K.aside .. op, id) == 0 then return false end
  call('HINCRBY', K.counts, 'aside', -1)
  if call('EXISTS', K.aside .. op) == 0 then call('SREM', K.asides, op) end
  return true
end
