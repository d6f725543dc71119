--@flags allow-oom
--@use head
-- call-once: notes that a job that may be called once (`retries: 0`) is called now.
--
-- KEYS[1] root
-- ARGV[1] id     text
-- ARGV[2] token  text  of the attempt
--
-- reply "ok"      noted, now or by an earlier sending: call it
--       "called"  an earlier attempt of this run was called; nothing written
--       "lost"    the attempt is over or not ours; nothing written
--       "gone"    no such record
-- A hand-back and a refused connection strike the note (others.lua), a requeue too: no call was made, or it was taken back.
local job = K.job .. id
local f = call('HMGET', job, 'h', 'one')
local h = head_of(f[1])
if not h.state then return 'gone' end
local _, _, _, current = attempt_of(h.start)
if h.state ~= 'started' or current ~= token then return 'lost' end
if f[2] and f[2] ~= token then return 'called' end
call('HSET', job, 'one', token)
return 'ok'
