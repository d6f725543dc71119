--@flags allow-oom
--@use push
--@use tally
--@use head
-- release: queues staged members of an accepted batch, at most 256 a call, in the batch's order.
--
-- KEYS[1] root
-- ARGV[1] batch  text
--
-- reply members still staged
--
-- The caller knows that the batch's record says committed; that never changes again. I1, I7: an id leaves
-- stage:<batch> in the step that queues it. One that was canceled meanwhile is only struck.
local stage = K.stage .. batch
local ids = call('LPOP', stage, 256) or {}
local plain, n = {}, 0
local seq = call('HINCRBY', K.counts, 'seq', #ids) - #ids
for _, id in ipairs(ids) do
  local f = call('HMGET', K.job .. id, 'h', 'pri', 'due', 'v')
  local h = head_of(f[1])
  if h.state == 'deferred' then
    n = n + 1
    seq = seq + 1
    local later = f[3] and tonumber(f[3]) > now
    h.state, h.more, h.n = later and 'scheduled' or 'queued', 1, seq
    call('HSET', K.job .. id, 'h', head_text(h), 'v', (tonumber(f[4]) or 0) + 1)
    if later then
      call('ZADD', K.scheduled, f[3], id)
    elseif f[2] then
      push(id, tonumber(f[2]), seq, false)
    else
      plain[#plain + 1] = id
    end
  end
end
if #plain > 0 then call('LPUSH', call('EXISTS', K.paused) == 1 and K.shelf or K.ready, unpack(plain)) end
if #ids > 0 then call('HINCRBY', K.counts, 'staged', -#ids) end
local left = call('LLEN', stage)
if left == 0 then call('ZREM', K.staged, batch) end
if n > 0 then count('submitted', n) end
write_tally()
return left
