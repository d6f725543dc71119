-- base: the clock and the shortest name. Record fields are spelled in jobs.ts (FIELD).
local call = redis.call
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000) -- ms, Redis's own clock: the only one all processes share
local stamp = string.format('%.0f', now) -- the same as text: Redis formats each number that it is given anew
