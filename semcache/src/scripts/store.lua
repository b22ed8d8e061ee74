#!lua
-- Writes a cache entry in the place of an older one, so that nothing of the older one is left, and sets its expiry.
-- KEYS[1]     the entry's hash
-- ARGV[1]     time to live, in milliseconds
-- ARGV[2..]   names and values of fields, alternating; `timestamp` is added here, in seconds of the server's clock
-- Reply       the timestamp, an integer
-- The line `#!lua` makes the server refuse the whole script when its memory is full: without it a first write that frees
-- memory lifts that check.
local now = tonumber(redis.call('TIME')[1])
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'timestamp', now, unpack(ARGV, 2))
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return now
