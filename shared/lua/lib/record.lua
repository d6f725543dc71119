--@use base
-- record: writes a new job from one group of ARGV that begins at `at`: id, op, payload, more.
-- `more` is what few jobs have, as JSON by the names of FIELD, "" = nothing: o (JSON text), pri, due, to, tt, ef, b, w.
-- Most jobs are four arguments long: each further one costs every job the time of a field (performance.md).
local RARE = { 'pri', 'due', 'to', 'tt', 'ef', 'b', 'w', 'o' }
local NONE = {}
local function more_of(at)
  local text = ARGV[at + 3]
  if text == '' then return NONE end
  return cjson.decode(text)
end

-- `z` marks a record that has more than these fields: where it is missing, nobody looks for the rest. Whoever adds options,
-- effects, a waiter, a cancel or an earlier attempt to a record sets it in the same step.
local function write_record(at, more, state, n)
  if more == NONE then
    return call('HSET', K.job .. ARGV[at], 's', state, 'op', ARGV[at + 1], 'c', stamp, 'n', text(n), 'p', ARGV[at + 2])
  end
  local f = { 's', state, 'op', ARGV[at + 1], 'c', stamp, 'n', text(n), 'z', 1 }
  if more.due and more.due <= now then more.due = nil end
  for _, name in ipairs(RARE) do
    local value = more[name]
    if value then
      f[#f + 1] = name
      f[#f + 1] = value
    end
  end
  f[#f + 1] = 'p'
  f[#f + 1] = ARGV[at + 2]
  call('HSET', K.job .. ARGV[at], unpack(f))
end
