-- Makes another message the one that the next message follows.
-- KEYS[1]  the session's log
-- KEYS[2]  the session's meta hash
-- ARGV[1]  '=<id>' that message, '/<id>' the one before it
-- Reply    the id of the message that is followed; or -1 there is no session, -2 it was erased, -3 there is no such message
local have = redis.call('HMGET', KEYS[2], 'v', 'erased', 'last', 'leaf')
if not have[1] then
    return have[2] and -2 or -1
end
local parent, tok = place(KEYS[1], KEYS[2], ARGV[1])
if not parent then
    return -3
end
if have[4] or parent ~= (have[3] == '' and '0-0' or have[3]) then
    redis.call('HSET', KEYS[2], 'leaf', parent, 'tok', tok)
    redis.call('HINCRBY', KEYS[2], 'sv', 1)
end
return parent
