-- Notes in a user's index that a session was active, and drops sessions that must have expired.
-- KEYS[1]  the user's index, a sorted set of session ids by time of activity in milliseconds
-- ARGV[1]  how long a session lives after it was active, in milliseconds: so long does the index live, too
-- ARGV[2]  the session's id
-- Reply    1
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now, ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
