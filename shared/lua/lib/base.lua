-- base: the clock and the shortest name. Record fields are spelled in jobs.ts (FIELD).
local call, ARGV = redis.call, ARGV -- a global is looked up at each use
local find, byte = string.find, string.byte
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000) -- ms, Redis's own clock: the only one all processes share
-- A whole number as text. Redis and Lua write a number that they are given with %.17g, at five times the price.
local function text(n) return string.format('%d', n) end
local stamp = text(now)
