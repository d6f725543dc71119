--@use base
-- drop: lets go of a list entry whose job must not run: canceled while listed (rule 8), expired, or the tombstone ''.
-- I6: a canceled record gets its TTL here, with the end of its entry; `l` holds it, in ms.
local function drop(id)
  if id ~= '' then
    local life = call('HGET', K.job .. id, 'l')
    if not life then return end
    call('HDEL', K.job .. id, 'l')
    call('PEXPIRE', K.job .. id, life)
  end
  call('HINCRBY', K.counts, 'ghosts', -1)
end
