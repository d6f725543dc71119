--@flags allow-oom
--@use base
-- batch-note: notes in a batch's record whether its members in one service have all ended.
--
-- KEYS[1] batch HASH  <namespace>:{batch:<id>}
-- ARGV[1] service   text
-- ARGV[2] ended    int   1 = all of them, 0 = a requeue has started one anew
--
-- reply 1   all members of all services have ended: the record has a TTL
--       0   some have not: it has none
--       -1  no such record; nothing written
local batch = KEYS[1]
local f = call('HMGET', batch, 'services', 'life', 'until', 'done')
if not f[1] then return -1 end
local done, n = '', 0
for name in string.gmatch(f[4] or '', '%S+') do
  if name ~= service then
    done = done .. name .. ' '
    n = n + 1
  end
end
if ended == 1 then
  done = done .. service
  n = n + 1
end
call('HSET', batch, 'done', done)
local _, services = string.gsub(f[1], '%S+', '')
if n < services then
  call('PERSIST', batch)
  return 0
end
call('PEXPIRE', batch, math.max(f[2], f[3] - now))
return 1
