--@use base
-- record: writes new jobs, which come in runs: "<n> <op>" or "<n> <op> <more>", and after it n times id and payload. `more` is
-- what few jobs have, as JSON by the names of FIELD: o (JSON text), pri, due, to, tt, ef, b, w. In place of due it may hold
-- delay, in ms from now: only Redis's clock says when that is over.
-- What jobs share is said once, as each argument costs every job as much as a field (performance.md).
local NONE = {}
local rest_of_head

-- How many a run has, and what is more of its jobs.
local function run_of(run)
  local n, op, more = string.match(run, '^(%d+) (%S+) ?(.*)$')
  rest_of_head = ' ' .. stamp .. ' ' .. op
  if more == '' then return tonumber(n), NONE end
  local its = cjson.decode(more)
  if its.delay then its.due = now + its.delay end
  return tonumber(n), its
end

-- Two digits of each number below 100. To format a whole number costs a job as much as a command's reply (performance.md).
local DIGITS = '00010203040506070809101112131415161718192021222324252627282930313233343536373839404142434445464748495051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899'
local sub, hundreds, high = string.sub, nil, nil

-- A job of the run that run_of was called for last.
local function write_record(key, payload, more, state, n)
  local low = n % 100
  if n - low ~= hundreds then hundreds, high = n - low, n < 100 and '' or text((n - low) / 100) end
  local head = high .. (n < 10 and n or sub(DIGITS, 2 * low + 1, 2 * low + 2)) .. rest_of_head
  if more == NONE and state == 'queued' then return call('HSET', key, 'h', head, 'p', payload) end
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
  f[#f + 1] = payload
  call('HSET', key, unpack(f))
end
