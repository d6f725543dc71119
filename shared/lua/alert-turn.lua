--@flags allow-oom
--@use base
-- alert-turn: lets one process a moment look at the alert rules, whatever their number, and gives it what is known.
--
-- KEYS[1] root
-- ARGV[1] every  int  ms until the next look
--
-- reply {}                                someone has looked a moment ago; nothing written
--       { now, states (flat HGETALL) }    it is the caller's turn
if not call('SET', K.alertTurn, 1, 'NX', 'PX', every) then return {} end
return { now, call('HGETALL', K.alertStates) }
