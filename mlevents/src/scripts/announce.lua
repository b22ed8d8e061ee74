#!lua
-- Notes that a consumer lives, and counts those that do.
-- KEYS[1] consumers of a group, by when they were last sure to live
-- ARGV[1] consumer
-- ARGV[2] milliseconds for which it lives; 0 takes it out
-- Reply: how many live
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[2] == '0' then
  redis.call('ZREM', KEYS[1], ARGV[1])
else
  redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
  redis.call('PEXPIRE', KEYS[1], 60000 + ARGV[2])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
return redis.call('ZCARD', KEYS[1])
