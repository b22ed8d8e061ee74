#!lua
-- Adds to a number of a row that is a hash.
-- KEYS[1] row
-- ARGV[1] field
-- ARGV[2] what is added
-- ARGV[3] HINCRBY or HINCRBYFLOAT
-- ARGV[4] time of the event, in microseconds
-- ARGV[5] milliseconds that the row lives, 0 for ever
-- Reply: the sum, as text
-- Rows of groups without a TTL have no expiry: features are the only copy on the serving path.
if redis.call('HGET', KEYS[1], ARGV[1]) == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
end
local sum
if ARGV[3] == 'HINCRBY' then
  redis.call('HINCRBY', KEYS[1], ARGV[1], ARGV[2])
  -- Sums beyond 2^53 would lose digits as numbers of Lua.
  sum = redis.call('HGET', KEYS[1], ARGV[1])
else
  sum = redis.call('HINCRBYFLOAT', KEYS[1], ARGV[1], ARGV[2])
end
local stored = tonumber(redis.call('HGET', KEYS[1], '_time') or '')
if not stored or stored < tonumber(ARGV[4]) then
  redis.call('HSET', KEYS[1], '_time', ARGV[4])
end
if ARGV[5] ~= '0' then
  redis.call('PEXPIRE', KEYS[1], ARGV[5])
end
return sum
