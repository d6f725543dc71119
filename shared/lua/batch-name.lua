--@use base
-- batch-name: binds an Idempotency-Key to a batch.
--
-- KEYS[1] name STRING  <namespace>:{batch-name:<hash>}  "<batch id> <body hash>"
-- ARGV[1] batch    text
-- ARGV[2] body     text  hash of the body
-- ARGV[3] ttl      int   ms that the key is remembered
-- ARGV[4] instead  text  a batch that was given up, or is gone, and may be replaced; "" = none
--
-- reply "ok"        bound, now or by an earlier sending
--       "=<id>"     it stands for that batch, of the same body; nothing written
--       "!<id>"     it stands for that batch, of another body; nothing written
local known = call('GET', KEYS[1])
local other = known and string.sub(known, 1, string.find(known, ' ', 1, true) - 1)
if other == batch then return 'ok' end
if not known or other == instead then
  call('SET', KEYS[1], batch .. ' ' .. body, 'PX', ttl)
  return 'ok'
end
return (string.sub(known, #other + 2) == body and '=' or '!') .. other
