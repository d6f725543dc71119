--@use attempts
-- cards: what a list shows of each job, at most 100 of them, and whether a text occurs in it.
--
-- KEYS[1] root
-- ARGV[1] q  text  in lower case; "" = every job is shown
-- ARGV[2…] repeated: id
--
-- reply, one item a job: { s, op, c, t, e, due, pri, a, pg, v, b, o, err, n }, or nil: no such record, or q is not in it
-- q is looked for in the id, the error, the options and the payload up to 64 KiB: at most 100 × 64 KiB a call.
local out = {}
for i = rest, #ARGV do
  local job = K.job .. ARGV[i]
  local f = call('HMGET', job, 's', 'op', 'c', 'k', 'e', 'due', 'pri', 'a', 'pg', 'v', 'b', 'o', 'err', 'n')
  local k = f[4]
  f[4], f[8], f[10] = attempt_of(k) or false, attempts_of(f[1], f[8], k), rev_of(f[1], f[10], k)
  local hit = f[1]
  if hit and q ~= '' then
    local text = ARGV[i] .. '\n' .. (f[13] or '') .. '\n' .. (f[12] or '')
    if call('HSTRLEN', job, 'p') <= 65536 then text = text .. '\n' .. (call('HGET', job, 'p') or '') end
    hit = string.find(string.lower(text), q, 1, true)
  end
  out[#out + 1] = hit and f or false
end
return out
