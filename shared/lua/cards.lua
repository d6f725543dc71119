--@use attempts
-- cards: what a list shows of each job, at most 100 of them, and whether a text occurs in it.
--
-- KEYS[1] root
-- ARGV[1] q  text  in lower case; "" = every job is shown
-- ARGV[2…] repeated: id
--
-- reply, one item a job: { s, op, c, t, e, due, pri, a, pg, v, b, o, err, n }, or nil: no such record, or q is not in it
-- q is looked for in the id, the error, the options and the payload up to 64 KiB: at most 100 × 64 KiB a call. Not in the headers
-- that are passed on, the last of the options: they may be secrets, and a hit would tell them.
local out = {}
for i = rest, #ARGV do
  local job = K.job .. ARGV[i]
  local f = call('HMGET', job, 'h', 'due', 'pri', 'a', 'pg', 'v', 'b', 'o', 'err')
  local h = head_of(f[1])
  local hit = h.state
  if hit and q ~= '' then
    local text = ARGV[i] .. '\n' .. (f[9] or '') .. '\n' .. string.gsub(f[8] or '', '"headers":.*$', '')
    if call('HSTRLEN', job, 'p') <= 65536 then text = text .. '\n' .. (call('HGET', job, 'p') or '') end
    hit = string.find(string.lower(text), q, 1, true)
  end
  out[#out + 1] = hit and { h.state, h.op, h.created, attempt_of(h.start) or false, string.match(h.ended, '%d+') or false, f[2], f[3],
    attempts_of(h, f[4]), f[5], rev_of(h, f[6]), f[7], f[8], f[9], h.n } or false
end
return out
