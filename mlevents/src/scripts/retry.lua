#!lua
-- Puts a delivery off.
-- KEYS[1] stream
-- KEYS[2] retries that were put off, by when they are due
-- ARGV[1] group
-- ARGV[2] consumer
-- ARGV[3] id of the entry
-- ARGV[4] milliseconds until it is due
-- Reply: 1 put off, 0 it was acknowledged
if not redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1)[1] then
  return 0
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[2], now + ARGV[4], ARGV[3])
-- Without it the delivery comes again as one that was not heard of.
redis.call('PEXPIRE', KEYS[2], 86400000 + ARGV[4])
return 1
