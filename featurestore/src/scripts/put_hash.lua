#!lua
-- Stores a row as a hash, unless a newer event is stored.
-- KEYS[1] row
-- ARGV[1] time of the event, in microseconds
-- ARGV[2] milliseconds that the row lives, 0 for ever
-- ARGV[3] and following: fields and values, in turn
-- Reply: 1 stored, 0 a newer event is there
-- Rows of groups without a TTL have no expiry: features are the only copy on the serving path.
local stored = tonumber(redis.call('HGET', KEYS[1], '_time') or '')
if stored and stored > tonumber(ARGV[1]) then
  return 0
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], '_time', ARGV[1])
-- What unpack puts on the stack is limited.
for first = 3, #ARGV, 2000 do
  redis.call('HSET', KEYS[1], unpack(ARGV, first, math.min(first + 1999, #ARGV)))
end
if ARGV[2] ~= '0' then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 1
