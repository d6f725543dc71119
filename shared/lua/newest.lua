--@use attempts
--@use entry
-- newest: the jobs of one service that changed last, at most `most` of each state, for the dashboard.
--
-- KEYS[1] root
-- ARGV[1] most  int  1–100
--
-- reply flat, 9 values a job: id, state, operation, created, started, ended, attempt, progress, text
--   text  its error, or the first 300 bytes of its result; "" = none. Times in ms, "" = none
-- Bounded by most and the number of states, never by the number of jobs.
local ids = {}
local function add(list)
  for _, id in ipairs(list) do
    if id ~= '' then ids[#ids + 1] = id end
  end
end
add(call('LRANGE', K.ready, 0, most - 1))
add(call('LRANGE', K.shelf, 0, most - 1))
add(call('ZREVRANGE', K.backlog, 0, most - 1))
for _, op in ipairs(call('SMEMBERS', K.asides)) do add(call('ZREVRANGE', K.aside .. op, 0, most - 1)) end
add(call('ZRANGE', K.scheduled, 0, most - 1))
for _, worker in ipairs(call('ZRANGE', K.leases, 0, most - 1)) do add(call('SRANDMEMBER', K.held .. worker, most)) end
for _, state in ipairs({ 'finished', 'failed', 'canceled' }) do
  local from = #ids
  for _, entry in ipairs(call('ZREVRANGE', K.ended .. state, 0, most - 1)) do
    add(ids_of(entry))
    if #ids - from >= most then break end
  end
  for i = #ids, from + most + 1, -1 do ids[i] = nil end
end
local out = {}
for _, id in ipairs(ids) do
  local f = call('HMGET', K.job .. id, 'h', 'a', 'pg', 'err', 'rt')
  local h = head_of(f[1])
  if h.state then
    local text = f[4] or ''
    if h.state == 'finished' and not f[5] then
      -- read whole, since a hash has no GETRANGE: 0.4 ms for 256 KiB, the largest inline result; a dashboard asks for
      -- 4 of a service in 5 s
      text = string.sub(call('HGET', K.job .. id, 'r') or '', 1, 300)
    end
    local n = #out
    out[n + 1], out[n + 2], out[n + 3], out[n + 4], out[n + 5] = id, h.state, h.op, h.created, attempt_of(h.start) or ''
    out[n + 6], out[n + 7], out[n + 8], out[n + 9] = string.match(h.ended, '%d+') or '', attempts_of(h, f[2]) or '0', f[3] or '', text
  end
end
return out
