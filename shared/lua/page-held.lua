--@use head
--@use above
-- page-held: the next running jobs, started last first.
--
-- KEYS[1] root
-- ARGV[1] at    int   ms; the page goes on below (at, id); -1 = from the newest
-- ARGV[2] id    text
-- ARGV[3] most  int
--
-- reply flat: id, start (ms)…
-- Looks at every running job: bounded by the slots of all workers, not by the number of jobs.
local found = {}
for _, worker in ipairs(call('ZRANGE', K.leases, 0, -1)) do
  for _, one in ipairs(call('SMEMBERS', K.held .. worker)) do
    local t = tonumber((attempt_of(head_of(call('HGET', K.job .. one, 'h')).start)))
    if t and (at < 0 or t < at or (t == at and above(id, one))) then found[#found + 1] = { t, one } end
  end
end
table.sort(found, function(a, b) return a[1] > b[1] or (a[1] == b[1] and above(a[2], b[2])) end)
local out = {}
for i = 1, math.min(most, #found) do
  out[2 * i - 1], out[2 * i] = found[i][2], found[i][1]
end
return out
