-- Makes sure that the janitor looks at a session no later than in some time.
-- KEYS[1]  a partition of the due-set, a sorted set of session ids by time in milliseconds. It does not expire: the janitor
--          takes out what is gone.
-- ARGV[1]  in how many milliseconds
-- ARGV[2]  the session's id
-- Reply    1
local time = redis.call('TIME')
local due = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[1]
redis.call('ZADD', KEYS[1], 'LT', due, ARGV[2])
return 1
