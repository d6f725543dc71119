--@use head
-- attempts: how many this run has spent, for those who show it. `a` counts those before the one that runs, or ended the job.
local function attempts_of(h, a)
  if h.state ~= 'started' and h.state ~= 'finished' and h.state ~= 'failed' then return a end
  local _, _, _, _, attempt = attempt_of(h.start)
  return attempt or a
end
