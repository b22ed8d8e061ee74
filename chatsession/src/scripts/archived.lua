-- Notes that a session is archived up to a message, and keeps it long enough for the janitor's next visit.
-- KEYS[1]  the session's log
-- KEYS[2]  the session's meta hash
-- ARGV[1]  the id of the last message in the archive, or '' to note nothing but only keep the session
-- ARGV[2]  how long it is kept at least, in milliseconds
-- Reply    1; 0 there is no such session, -2 it was erased
local have = redis.call('HMGET', KEYS[2], 'v', 'erased')
if not have[1] then
    return have[2] and -2 or 0
end
if ARGV[1] ~= '' then
    redis.call('HSET', KEYS[2], 'archived', ARGV[1])
end
if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[2]) then
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
    redis.call('PEXPIRE', KEYS[2], ARGV[2])
end
return 1
