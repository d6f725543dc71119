--@flags allow-oom
--@use entry
-- sweep: finds what has expired in one slice of an ended index: some 500 jobs.
--
-- KEYS[1] root
-- ARGV[1] state   text  finished | failed | canceled
-- ARGV[2] offset  int   rank of the slice's first entry; 0 = the oldest
--
-- reply { entries looked at, jobs looked at, { id of an expired one… }, { entry that holds such a one… } }
-- Nothing is written: the caller first deletes their result files, then sends sweep-drop, so that a crash between the
-- two leaves an entry and never an orphaned file.
local gone, entries, jobs, looked = {}, {}, 0, 0
repeat
  local slice = call('ZRANGE', K.ended .. state, offset + looked, offset + looked + 15)
  for _, entry in ipairs(slice) do
    local before = #gone
    for _, id in ipairs(ids_of(entry)) do
      jobs = jobs + 1
      if call('EXISTS', K.job .. id) == 0 then gone[#gone + 1] = id end
    end
    if #gone > before then entries[#entries + 1] = entry end
    looked = looked + 1
    if jobs >= 500 then break end
  end
until jobs >= 500 or #slice < 16
return { looked, jobs, gone, entries }
