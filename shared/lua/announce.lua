--@flags allow-oom
--@use base
-- announce: keeps what a worker says of itself, with the times of its beat and its start by Redis's clock.
--
-- KEYS[1] workers HASH  lh:workers
-- ARGV[1] worker  text
-- ARGV[2] up      int   ms since the worker began
-- ARGV[3] info    text  JSON object of everything else, with at least one member
--
-- reply now (ms, Redis TIME)
local times = '{"beatAt":' .. stamp .. ',"startedAt":' .. text(now - up) .. ','
call('HSET', KEYS[1], worker, times .. string.sub(info, 2))
return now
