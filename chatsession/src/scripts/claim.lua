-- Takes sessions that are due: nobody else gets them until the lease ends.
-- KEYS[1]  a partition of the due-set; it does not expire, see schedule.lua
-- ARGV[1]  at most how many
-- ARGV[2]  how long the lease lasts, in milliseconds
-- Reply    the time and the end of the lease in milliseconds, integers, then the sessions' ids
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local reply = {now, now + ARGV[2]}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])) do
    redis.call('ZADD', KEYS[1], reply[2], id)
    reply[#reply + 1] = id
end
return reply
