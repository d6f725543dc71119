--@flags allow-oom
--@use entry
-- sweep-drop: strikes expired jobs from an ended index.
--
-- KEYS[1] root
-- ARGV[1] state  text
-- ARGV[2…] repeated: entry
--
-- reply struck jobs. An entry that is no longer as sweep told it is left to the next sweep. A record that exists (a cron id used again) keeps its place.
local n = 0
for i = rest, #ARGV do
  local entry = ARGV[i]
  local score, gone = call('ZSCORE', K.ended .. state, entry), {}
  if score then
    for _, id in ipairs(ids_of(entry)) do gone[id] = call('EXISTS', K.job .. id) == 0 or nil end
    n = n + strike_entry(state, entry, score, gone)
  end
end
return n
