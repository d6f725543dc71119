--@flags allow-oom
--@use base
-- sweep-drop: strikes expired jobs from an ended index.
--
-- KEYS[1] root
-- ARGV[1] state  text
-- ARGV[2…] repeated: id
--
-- reply struck entries. A record that exists (a cron id used again) keeps its entry.
local n = 0
for i = rest, #ARGV do
  if call('EXISTS', K.job .. ARGV[i]) == 0 then n = n + call('ZREM', K.ended .. state, ARGV[i]) end
end
return n
