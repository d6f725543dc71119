--@use attempt
-- attempts: how many this run has spent, for those who show it. `a` counts those before the one that runs, or ended the job.
local function attempts_of(state, a, k)
  if state ~= 'started' and state ~= 'finished' and state ~= 'failed' then return a end
  local _, _, _, _, attempt = attempt_of(k)
  return attempt or a
end
