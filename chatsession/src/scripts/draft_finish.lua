-- Moves a draft into the log as one message; what is left of the draft is a mark that tells its readers.
-- KEYS[1]    the session's log
-- KEYS[2]    the session's meta hash
-- KEYS[3]    the draft
-- ARGV[1]    the turn
-- ARGV[2]    the id of the last delta that is in the message
-- ARGV[3]    how long the mark stays, in milliseconds
-- ARGV[4..]  as append_core.lua says; no messages for a draft without content
-- Reply      as append_core.lua says; or -5 the draft is finished or gone, -6 there are more deltas; from then on no more are accepted
if redis.call('HEXISTS', KEYS[2], 'd:' .. ARGV[1]) == 0 then
    local have = redis.call('HMGET', KEYS[2], 'v', 'erased')
    return have[1] and -5 or have[2] and -2 or -1
end
local newest = redis.call('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1)[1]
if (newest and newest[1] or '') ~= ARGV[2] then
    redis.call('HSET', KEYS[2], 'd:' .. ARGV[1], 0)
    return -6
end
local reply = append(KEYS[1], KEYS[2], 4)
if type(reply) == 'number' then
    return reply
end
redis.call('HDEL', KEYS[2], 'd:' .. ARGV[1])
redis.call('HINCRBY', KEYS[2], 'drafts', -1)
-- The mark has a later id than all deltas, so that readers who resume find it.
redis.call('XADD', KEYS[3], 'MAXLEN', '=', 1, '*', 'end', (string.gsub(reply[2] or '', '^=', '')))
redis.call('PEXPIRE', KEYS[3], ARGV[3])
return reply
