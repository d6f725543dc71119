--@use base
-- head: the field h, what every job has, as one text: each field has its price at every step that writes it, looks for
-- it, reads it or logs it (performance.md). It grows with the job's life:
--   "<n> <created> <op>"                         queued
--   "…|<started> <deadline> <rev> <token>"       started
--   "…|<start>|<ended> <timing>"                 finished; timing is "first,last[,status]" of the answer, or nothing
-- That is the common job, one that was never touched: nothing but h, the payload and a result. Any other has its state and
-- `more` in front: "<state> <more> <n> <created> <op>|<last start>|<end>", trailing nothing left out.
-- more: 1 = the record has options, effects, a waiter, a cancel or earlier attempts; at 0 nobody looks for them. Whoever
-- adds one sets it in the same step.
-- The token is attempt.worker.random; "attempt." stands for none: void.
-- The common job is written and read without these functions, which cost more: lib/record.lua, turn.lua.
local TERMINAL = { finished = true, failed = true, canceled = true }
local COMMON = { queued = true, started = true, finished = true }

-- The parts, as text: state, more, n, created, op, start, ended. No record: none of them.
local function head_of(text)
  if not text then return {} end
  local state, more, rest = string.match(text, '^(%l+) (%d) (.*)$')
  local n, created, op, start, ended = string.match(rest or text, '^(%d+) (%d+) ([^|]+)|?([^|]*)|?(.*)$')
  if not n then return {} end
  state = state or ended ~= '' and 'finished' or start ~= '' and 'started' or 'queued'
  return { state = state, more = more or '0', n = n, created = created, op = op, start = start, ended = ended }
end

local function head_text(h)
  local text = h.n .. ' ' .. h.created .. ' ' .. h.op
  if h.ended ~= '' then text = text .. '|' .. h.start .. '|' .. h.ended
  elseif h.start ~= '' then text = text .. '|' .. h.start end
  if h.more == '0' and COMMON[h.state] then return text end
  return h.state .. ' ' .. h.more .. ' ' .. text
end

-- Of a start: started, deadline, rev, token, attempt.
local function attempt_of(start)
  return string.match(start or '', '^(%d+) (%d+) (%d+) ((%d+)%..*)$')
end

local function voided(start)
  local started, deadline, rev, _, attempt = attempt_of(start)
  return started .. ' ' .. deadline .. ' ' .. rev .. ' ' .. attempt .. '.'
end

-- The revision: of the last change (v) or the last start, whichever is later; an end adds one and writes nothing.
local function rev_of(h, v)
  local _, _, rev = attempt_of(h.start)
  rev = math.max(tonumber(v) or 0, tonumber(rev) or 0)
  return TERMINAL[h.state] and rev + 1 or rev
end
