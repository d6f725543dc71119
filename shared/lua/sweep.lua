--@flags allow-oom
--@use base
-- sweep: finds what has expired in one slice of an ended index, at most 500 entries.
--
-- KEYS[1] root
-- ARGV[1] state   text  finished | failed | canceled
-- ARGV[2] offset  int   rank of the slice's first entry; 0 = the oldest
--
-- reply { entries looked at, id of an expired one… }
-- Nothing is written: the caller first deletes their result files, then sends sweep-drop, so that a crash between the
-- two leaves an entry and never an orphaned file.
local gone = {}
local slice = call('ZRANGE', K.ended .. state, offset, offset + 499)
for _, id in ipairs(slice) do
  if call('EXISTS', K.job .. id) == 0 then gone[#gone + 1] = id end
end
return { #slice, unpack(gone) }
