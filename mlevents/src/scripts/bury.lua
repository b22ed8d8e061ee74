#!lua
-- Moves a delivery to the dead letters.
-- KEYS[1] stream
-- KEYS[2] dead letters
-- KEYS[3] retries that were put off
-- KEYS[4] how far each group has come
-- ARGV[1] group
-- ARGV[2] id of the entry
-- ARGV[3] how many dead letters are kept, about
-- ARGV[4] and following: fields and values of the dead letter, in turn; those of the entry are put behind
-- Reply: 1 moved, 0 it was acknowledged before
-- Dead letters have no expiry: they wait for somebody.
redis.call('ZREM', KEYS[3], ARGV[2])
if redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) == 0 then
  return 0
end
local fields = {unpack(ARGV, 4)}
local entry = redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2])[1]
if entry then
  for _, part in ipairs(entry[2]) do
    table.insert(fields, part)
  end
end
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], '*', unpack(fields))
local pending = redis.call('XPENDING', KEYS[1], ARGV[1])
if pending[1] > 0 then
  redis.call('HSET', KEYS[4], ARGV[1], '<' .. pending[2])
end
return 1
