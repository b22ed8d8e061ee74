-- Says that an instance lives, and counts those that do.
-- KEYS[1]     instances: zset of instances by when they count as gone
-- ARGV[1]     the instance
-- ARGV[2]     for how many milliseconds it counts; 0 says that it leaves
-- Reply       how many live
local call, life = redis.call, tonumber(ARGV[2])
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if life > 0 then
  call('ZADD', KEYS[1], now + life, ARGV[1])
  call('PEXPIRE', KEYS[1], 2 * life)
else
  call('ZREM', KEYS[1], ARGV[1])
end
call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
return call('ZCARD', KEYS[1])
