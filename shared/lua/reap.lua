--@flags allow-oom
--@use hand_back
--@use close
--@use head
-- reap: takes back what a dead worker, or one that overran a deadline, still holds. At most 100 jobs a call.
--
-- KEYS[1] root
-- ARGV[1] worker   text  the worker to look at
-- ARGV[2] lease    int   ms that a beat is valid
-- ARGV[3] block    int   ms, the longest BLMOVE: an entry of leases goes only when it is older than lease + block
-- ARGV[4] grace    int   ms past its deadline before a live worker's job is overruled
-- ARGV[5] poison   int   redeliveries that a run may have
-- ARGV[6] ttl      int   ms, life of a job that fails here
-- ARGV[7] once     text  " op op ": operations that may not run twice (on_orphan: fail)
-- ARGV[8] seen     int   ms, Redis TIME when the reaper last looked at the leases
--
-- reply { handed back, failed, left, ended }
--   left  jobs that the worker still holds; -1 = nothing is left and the worker was struck from leases;
--         -2 = this call was long on its way (it waited for Redis, or was sent again): nothing was written, look again
--
--   ended flat: id, operation, attempt, outcome, of each job that the worker held: "redelivered", or how it ended
--
-- The lease is read again in the script that acts on it. The token is voided, so the old worker's settle reads "lost".
-- Rule 4: a call that outlived an outage of Redis comes before the beats of the living.
if math.abs(now - seen) > lease / 2 then return { 0, 0, -2, {} } end
local beat = tonumber(call('ZSCORE', K.leases, worker))
-- A beat far ahead is from before the clock was set back; the living have beaten since.
local dead = not beat or math.abs(now - beat) > lease
local held, wake = K.held .. worker, K.wake .. worker
local back, failed, ended = 0, 0, {}

local function note(job, outcome)
  local n = #ended
  ended[n + 1], ended[n + 2], ended[n + 3], ended[n + 4] = job.id, job.h.op, text(job.attempt), outcome
end

-- job: what look read of it.
local function verdict(job, code, message)
  note(job, job.x and 'canceled' or code)
  job.h.start = voided(job.h.start)
  if job.x then
    close(job.id, job, 'canceled', ttl, 'a', job.attempt, 'err', CANCELED)
  else
    failed = failed + 1
    local err = string.format('{"code":"%s","message":"%s","retryable":false}', code, message)
    close(job.id, job, 'failed', ttl, 'err', err)
  end
end

local function logged(job, outcome)
  local entry = string.format('{"attempt":%d,"worker":"%s","started":%s,"ended":%s,"outcome":"%s"}',
    job.attempt, worker, job.started, stamp, outcome)
  return job.log and job.log .. '\n' .. entry or entry
end

local function look(id)
  local key = K.job .. id
  local f = call('HMGET', key, 'h', 'v', 'x', 'w', 'ef', 'tt', 'd', 'pri', 'log', 'one')
  local h = head_of(f[1])
  local started, deadline, _, token, attempt = attempt_of(h.start)
  if h.state ~= 'started' or not string.find(token or '', '.' .. worker .. '.', 1, true) then
    if dead then call('SREM', held, id) end
    return
  end
  local job = { id = id, h = h, x = f[3], w = f[4], ef = f[5], tt = f[6], log = f[9], attempt = attempt, started = started }
  if dead then
    call('SREM', held, id)
    local d = (tonumber(f[7]) or 0) + 1
    count('orphaned')
    if job.x then
      verdict(job, 'canceled', '')
    elseif string.find(once, ' ' .. h.op .. ' ', 1, true) then
      call('HSET', key, 'log', logged(job, 'orphaned'))
      verdict(job, 'orphaned', 'The worker died while the call ran, and this operation may not run twice')
    elseif f[10] then
      call('HSET', key, 'log', logged(job, 'orphaned'))
      verdict(job, 'orphaned', 'The worker died while the call ran, and the job may be called once (retries: 0)')
    elseif d > poison then
      count('poison')
      call('HSET', key, 'log', logged(job, 'orphaned'), 'd', d)
      verdict(job, 'poison', 'The worker died under this job ' .. d .. ' times')
    else
      count('redelivered')
      back = back + 1
      note(job, 'redelivered')
      local v = rev_of(h, f[2]) + 1
      h.state, h.more, h.start = 'queued', 1, voided(h.start)
      call('HSET', key, 'h', head_text(h), 'a', attempt - 1, 'd', d, 'v', v, 'log', logged(job, 'orphaned'))
      call('HDEL', key, 'pg', 'pm')
      push(id, f[8] and tonumber(f[8]), h.n, true)
    end
  elseif now > deadline + grace then
    call('SREM', held, id)
    call('HSET', key, 'log', logged(job, 'timeout'))
    verdict(job, 'timeout', 'The time limit passed and the worker did not say so')
  end
end

if dead then
  for _ = 1, 100 do
    local id = call('LPOP', wake) -- newest first, so that the oldest is taken first again
    if not id then break end
    hand_back(id)
  end
end
for _, id in ipairs(call('SRANDMEMBER', held, 100)) do look(id) end
local left = call('SCARD', held) + call('LLEN', wake)
if left == 0 and beat and now - beat > lease + block then
  call('ZREM', K.leases, worker)
  left = -1
end
write_ends()
write_tally()
return { back, failed, left, ended }
