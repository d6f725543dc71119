--@flags allow-oom
--@use base
-- discard: erases staged members of a batch that was not accepted, at most 256 a call.
--
-- KEYS[1] root
-- ARGV[1] batch  text
--
-- reply members still staged
--
-- The caller knows that the batch's record says aborted, or is gone; neither is ever committed afterwards.
local stage = K.stage .. batch
local ids = call('LPOP', stage, 256) or {}
for _, id in ipairs(ids) do
  if string.find(call('HGET', K.job .. id, 'h') or '', '^deferred ') then call('DEL', K.job .. id) end
end
if #ids > 0 then call('HINCRBY', K.counts, 'staged', -#ids) end
local left = call('LLEN', stage)
if left == 0 then
  call('ZREM', K.staged, batch)
  call('DEL', K.batch .. batch, K.misses .. batch)
end
return left
