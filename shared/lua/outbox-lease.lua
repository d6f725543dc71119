--@flags allow-oom
--@use base
-- outbox-lease: takes effects that are due, by pushing their due time forward. Two clocks never get the same one.
--
-- KEYS[1] root
-- ARGV[1] lease  int   ms until they are due again, unless the one who took them says otherwise
-- ARGV[2] most   int   1–500
--
-- reply flat: entry, its new due time (ms): whoever changes it shows that time, see outbox-settle
local due = call('ZRANGEBYSCORE', K.outbox, '-inf', now, 'LIMIT', 0, most)
local out = {}
for i, entry in ipairs(due) do
  call('ZADD', K.outbox, now + lease, entry)
  out[2 * i - 1], out[2 * i] = entry, now + lease
end
return out
