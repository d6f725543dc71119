--@use head
-- states: how many of the given jobs are in each state, at most 500 of them.
--
-- KEYS[1] root
-- ARGV[1…] repeated: id
--
-- reply flat: state, jobs…  A record that is gone counts nowhere.
local counts, out = {}, {}
for i = rest, #ARGV do
  local state = head_of(call('HGET', K.job .. ARGV[i], 'h')).state
  if state then counts[state] = (counts[state] or 0) + 1 end
end
for state, n in pairs(counts) do
  out[#out + 1] = state
  out[#out + 1] = n
end
return out
