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

local function write_record(key, at, more, state, n)
  local head = text(n) .. ' ' .. stamp .. ' ' .. ARGV[at + 1]
  if more == NONE and state == 'queued' then return call('HSET', key, 'h', head, 'p', ARGV[at + 2]) end
  local f = { 'h', state .. ' 1 ' .. head }
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
  call('HSET', key, unpack(f))
end
