#!lua
-- Writes a document in the place of an older one, so that neither a field nor an expiry of the older one is left.
-- KEYS[1]     the document's hash
-- ARGV[1]     time to live in milliseconds, 0 for none
-- ARGV[2..]   names and values of fields, alternating
-- Reply       1
-- The line `#!lua` makes the server refuse the whole script when its memory is full, before the older document is gone.
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
if ARGV[1] ~= '0' then
  redis.call('PEXPIRE', KEYS[1], ARGV[1])
end
return 1
