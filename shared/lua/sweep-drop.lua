--@flags allow-oom
--@use entry
-- sweep-drop: strikes expired jobs from an ended index.
--
-- KEYS[1] root
-- ARGV[1] state  text
-- ARGV[2…] repeated: entry
--
-- reply { struck jobs, entries of which nothing is left }
-- An entry that is no longer as sweep told it is left to the next sweep. A record that exists (a cron id used again) keeps its place.
local key, struck, went = K.ended .. state, 0, 0
for i = rest, #ARGV do
  local entry = ARGV[i]
  local score, gone = call('ZSCORE', key, entry), {}
  if score then
    for _, id in ipairs(ids_of(entry)) do gone[id] = call('EXISTS', K.job .. id) == 0 or nil end
    local n, left = strike_entry(key, entry, score, gone)
    struck, went = struck + n, went + (left == '' and 1 or 0)
  end
end
count_struck(state, struck)
return { struck, went }
