--@use base
-- record: writes a new job from one group of ARGV that begins at `at`:
-- id, op, payload, options, pri, due, timeout, ttl, effects, batch, watched ("" or 0 = none; see submit.lua).
local function write_record(at, state, n)
  local f = { 's', state, 'op', ARGV[at + 1], 'c', now, 'n', n }
  local function set(name, value, none)
    if value ~= none then
      f[#f + 1] = name
      f[#f + 1] = value
    end
  end
  set('pri', ARGV[at + 4], '')
  if tonumber(ARGV[at + 5]) > now then set('due', ARGV[at + 5]) end
  set('to', ARGV[at + 6], '0')
  set('tt', ARGV[at + 7], '0')
  set('ef', ARGV[at + 8], '')
  set('b', ARGV[at + 9], '')
  if ARGV[at + 10] == '1' then set('w', 1) end
  set('o', ARGV[at + 3], '')
  set('p', ARGV[at + 2])
  call('HSET', K.job .. ARGV[at], unpack(f))
end
