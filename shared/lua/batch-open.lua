--@use base
-- batch-open: writes the record of a batch, before any of its members.
--
-- KEYS[1] batch HASH  <namespace>:{batch:<id>}
-- ARGV[1] members  text  JSON: the members' ids in the client's order
-- ARGV[2] services text  "svc svc": those that it has members in
-- ARGV[3] life     int   ms that it outlives the last member's end
-- ARGV[4] keep     int   ms that it lives at least, from now: an Idempotency-Key leads to it
-- ARGV[5] patience int   ms that it lives unless it is committed
--
-- reply its state: "preparing" now or by an earlier sending, else what became of it
local batch = KEYS[1]
local state = call('HGET', batch, 's')
if state then return state end
call('HSET', batch, 's', 'preparing', 'c', now, 'life', life, 'until', now + keep, 'services', services,
  'ids', members)
call('PEXPIRE', batch, patience)
return 'preparing'
