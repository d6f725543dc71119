--@use base
-- record: writes a new job from one group of ARGV that begins at `at`: id, kind, payload.
-- `kind` is "op", or "op more"; "" = as of the group before. `more` is what few jobs have, as JSON by the names of FIELD:
-- o (JSON text), pri, due, to, tt, ef, b, w. Each argument costs every job as much as a field (performance.md).
local NONE = {}
local common, rest_of_head

-- What is more of the group at `at`. To be called in their order; a group whose kind is "" may be left out.
local function more_of(at)
  local kind = ARGV[at + 1]
  if kind ~= '' then
    local cut = string.find(kind, ' ', 1, true)
    local op = cut and string.sub(kind, 1, cut - 1) or kind
    common = cut and cjson.decode(string.sub(kind, cut + 1)) or NONE
    rest_of_head = ' ' .. stamp .. ' ' .. op
  end
  return common
end

-- Two digits of each number below 100. To format a whole number costs a job as much as a command's reply (performance.md).
local DIGITS = '00010203040506070809101112131415161718192021222324252627282930313233343536373839404142434445464748495051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899'
local sub, hundreds, high = string.sub, nil, nil

-- A group of the kind that more_of was called for last.
local function write_record(key, at, more, state, n)
  local low = n % 100
  if n - low ~= hundreds then hundreds, high = n - low, n < 100 and '' or text((n - low) / 100) end
  local head = high .. (n < 10 and n or sub(DIGITS, 2 * low + 1, 2 * low + 2)) .. rest_of_head
  if more == NONE and state == 'queued' then return call('HSET', key, 'h', head, 'p', ARGV[at + 2]) end
  local f = { 'h', state .. ' 1 ' .. head }
  if more.due and more.due <= now then more.due = nil end
  for _, name in ipairs({ 'pri', 'due', 'to', 'tt', 'ef', 'b', 'w', 'o' }) do
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
