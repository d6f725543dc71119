--@flags allow-oom
--@use base
-- resume: the reverse of pause, order kept.
--
-- KEYS[1] root
--
-- reply jobs that may be taken now
-- The rename wakes a blocked BLMOVE. Resuming twice changes nothing.
call('DEL', K.paused)
if call('EXISTS', K.shelf) == 1 then
  while call('LMOVE', K.ready, K.shelf, 'RIGHT', 'LEFT') do end -- none can be there; were one, it came later
  call('RENAME', K.shelf, K.ready)
end
return call('LLEN', K.ready) + call('ZCARD', K.backlog) + (call('HGET', K.counts, 'aside') or 0)
