--@flags allow-oom
--@use base
-- alert-flip: notes the states of alert rules, and queues what is to be told of a flip in the same step.
-- A state is replaced only where it still is what the caller saw, so that of any number of processes one flips it, and
-- sent twice it does nothing more.
--
-- KEYS[1] root
-- ARGV[1] most  int   flips of one rule that wait for delivery; beyond it the oldest goes
-- ARGV[2…] repeated: rule, seen ("" = none yet), state, event (JSON; "" = not a flip)
--
-- reply how many were replaced
local replaced = 0
for at = rest, #ARGV, 4 do
  local rule, event = ARGV[at], ARGV[at + 3]
  if (call('HGET', K.alertStates, rule) or '') == ARGV[at + 1] then
    call('HSET', K.alertStates, rule, ARGV[at + 2])
    replaced = replaced + 1
    if event ~= '' then
      call('RPUSH', K.alertFlips .. rule, event)
      call('LTRIM', K.alertFlips .. rule, -most, -1)
      -- NX: while one is under way or waits for its next try, this one waits behind it
      call('ZADD', K.outbox, 'NX', now, 'a ' .. rule)
    end
  end
end
return replaced
