--@flags allow-oom
--@use base
-- sweep-ghosts: lets go of canceled jobs that are still listed, in one slice of a list, at most 500 entries.
--
-- KEYS[1] root
-- ARGV[1] list    text  "ready" | "shelf"
-- ARGV[2] offset  int   entries from the taking end that were looked at already
--
-- reply { entries looked at, jobs let go }
-- The entry becomes "", which a take drops: LREM would walk the list, LSET seeks by node. It still counts as a ghost.
local key = list == 'shelf' and K.shelf or K.ready
local slice = call('LRANGE', key, -offset - 500, -offset - 1)
local n = 0
for i, id in ipairs(slice) do
  local f = id ~= '' and call('HMGET', K.job .. id, 'h', 'l')
  if f and f[2] and string.find(f[1] or '', '^canceled ') then
    call('LSET', key, i - 1 - offset - #slice, '')
    call('HDEL', K.job .. id, 'l')
    call('PEXPIRE', K.job .. id, f[2])
    n = n + 1
  end
end
return { #slice, n }
