#!lua
-- Appends an event, unless its id was appended in the last minutes.
-- KEYS[1] stream
-- KEYS[2] ids that were appended
-- ARGV[1] id of the event
-- ARGV[2] milliseconds for which ids are remembered
-- ARGV[3] and following: fields and values of the entry, in turn
-- Reply: id of the entry, or an empty text if the event was there
-- The stream has no expiry: events stay until they are trimmed.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - ARGV[2])
local is_new = redis.call('ZADD', KEYS[2], 'NX', now, ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
if is_new == 0 then
  return ''
end
return redis.call('XADD', KEYS[1], '*', unpack(ARGV, 3))
