#!lua
-- Keeps a result, and until when it is fresh by the server's clock.
-- KEYS[1]     the result's string
-- ARGV[1]     how long it is fresh, in milliseconds
-- ARGV[2]     how long it is kept, in milliseconds
-- ARGV[3]     the first 4 bytes
-- ARGV[4]     the result
-- Reply       OK
local time = redis.call('TIME')
local fresh = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[1]
return redis.call('SET', KEYS[1], ARGV[3] .. struct.pack('<I8', fresh) .. ARGV[4], 'PX', ARGV[2])
