--@flags allow-oom
--@use base
-- pause: nothing more is taken until resume; what runs goes on.
--
-- KEYS[1] root
--
-- reply jobs that lie in ready's place now, canceled ones that are still listed among them
-- The flag and the rename are one step: a blocked BLMOVE waits for `ready`, so it gets nothing while the jobs lie on
-- the shelf, in the same order. Every push honours the flag. Pausing twice changes nothing.
call('SETNX', K.paused, now)
if call('EXISTS', K.ready) == 1 then
  while call('LMOVE', K.shelf, K.ready, 'RIGHT', 'LEFT') do end -- none can be there; were one, it came later
  call('RENAME', K.ready, K.shelf)
end
return call('LLEN', K.shelf)
