--@flags allow-oom
--@use push
--@use drop
--@use close
-- purge: cancels what an empty took away, oldest first, at most 500 a call.
--
-- KEYS[1] root
-- ARGV[1] ttl  int  ms, life of a job canceled here
--
-- reply { looked at, canceled }; { 0, 0 } = nothing is left to do
--
-- Entries are struck after their jobs: an error in between leaves entries of terminal jobs, which are dropped.
local part, seq = unpack(call('ZRANGE', K.condemned, 0, 0, 'WITHSCORES'))
if not part then return { 0, 0 } end
seq = tonumber(seq)
local kind = string.match(part, ':(%a+)$')
local listed = kind == 'ready' or kind == 'shelf'
local key = (listed and K.condemnedList or K.condemnedSet) .. part
local ids
if listed then ids = call('LRANGE', key, -500, -1) else ids = call('ZRANGE', key, 0, 499) end
local err = '{"code":"canceled","message":"canceled: an operator emptied the queue","retryable":false}'
local canceled = 0
for i = 1, #ids do
  local id = ids[listed and #ids + 1 - i or i] -- a list's oldest stands at its right end
  local job = K.job .. id
  local f = id ~= '' and call('HMGET', job, 'h', 'w', 'ef', 'tt', 'pri')
  local h = head_of(f and f[1])
  if h.state ~= 'queued' and h.state ~= 'scheduled' then
    drop(id) -- canceled while it stood here, or a tombstone
  elseif h.state == 'queued' and tonumber(h.n) > seq then
    push(id, f[5] and tonumber(f[5]), h.n, false) -- requeued since
  elseif h.state == (kind == 'scheduled' and kind or 'queued') then
    canceled = canceled + 1
    close(id, { h = h, w = f[2], ef = f[3], tt = f[4] }, 'canceled', ttl, 'err', err)
  end
end
if #ids > 0 then
  if listed then call('LTRIM', key, 0, -#ids - 1) else call('ZREMRANGEBYRANK', key, 0, #ids - 1) end
  call('HINCRBY', K.counts, kind == 'scheduled' and 'condemnedlater' or 'condemned', -#ids)
end
if #ids < 500 then call('ZREM', K.condemned, part) end
write_ends()
write_tally()
return { math.max(1, #ids), canceled }
