-- Removes messages that are in the summary from the log; a branched session keeps all, since its other branches are not.
-- KEYS[1]  the session's log
-- KEYS[2]  the session's meta hash
-- Reply    how many were removed; -1 there is no session, -2 it was erased
--
-- The summary is kept besides as 'base': branches that begin between it and a later summary need it.
local have = redis.call('HMGET', KEYS[2], 'v', 'erased', 'upto', 'leaf', 'summary', 'sumtok', 'sumn', 'trimmed')
if not have[1] then
    return have[2] and -2 or -1
end
if not have[3] or have[4] or have[3] == have[8] then
    return 0
end
local ms, seq = string.match(have[3], '^(%d+)-(%d+)$')
local removed = redis.call('XTRIM', KEYS[1], 'MINID', '=', string.format('%s-%d', ms, seq + 1))
redis.call('HSET', KEYS[2], 'trimmed', have[3], 'base', have[5], 'basetok', have[6], 'basen', have[7])
return removed
