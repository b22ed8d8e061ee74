-- Appends deltas to the draft of an answer.
-- KEYS[1]    the session's meta hash; the field 'd:<turn>' marks an open draft: 1, or 0 while it is being finished
-- KEYS[2]    the draft, a stream
-- ARGV[1]    how long the draft lives, in milliseconds
-- ARGV[2]    the turn
-- ARGV[3..]  the deltas, JSON
-- Reply      the last delta's id; or -1 there is no session, -2 it was erased, -5 the draft is finished
local have = redis.call('HMGET', KEYS[1], 'v', 'erased', 'd:' .. ARGV[2])
if not have[1] then
    return have[2] and -2 or -1
end
if have[3] == '0' then
    return -5
end
if not have[3] then
    if redis.call('EXISTS', KEYS[2]) == 1 then
        return -5
    end
    redis.call('HSET', KEYS[1], 'd:' .. ARGV[2], 1)
    redis.call('HINCRBY', KEYS[1], 'drafts', 1)
end
local id
for i = 3, #ARGV do
    id = redis.call('XADD', KEYS[2], '*', 'delta', ARGV[i])
end
redis.call('PEXPIRE', KEYS[2], ARGV[1])
return id
