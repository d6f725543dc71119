-- rate: whether one more request of a caller fits its rate (GCRA: one time stamp says all).
--
-- KEYS[1] rate STRING  <namespace>:{rate:<caller>}  µs: when the bucket is empty again
-- ARGV[1] interval  int  µs that one request takes up
-- ARGV[2] burst     int  requests that may come at once
--
-- reply 0  it fits
--       ms until one fits; nothing written
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local empty = math.max(tonumber(redis.call('GET', KEYS[1]) or nil) or 0, now) + interval
local wait = empty - burst * interval - now
if wait > 0 then return math.ceil(wait / 1000) end
redis.call('SET', KEYS[1], string.format('%.0f', empty), 'PX', math.ceil((empty - now) / 1000))
return 0
