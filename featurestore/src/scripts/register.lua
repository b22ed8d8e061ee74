#!lua
-- Stores the next version of a group's definition, if nobody else did.
-- KEYS[1] definitions of the group
-- ARGV[1] number of the version, from 1
-- ARGV[2] definition
-- ARGV[3] lineage, for the first version
-- Reply: 1 stored, 0 another version came first
-- Definitions have no expiry: rows cannot be read without them.
local latest = tonumber(redis.call('HGET', KEYS[1], 'latest') or '0')
if latest + 1 ~= tonumber(ARGV[1]) then
  return 0
end
if latest == 0 then
  redis.call('HSET', KEYS[1], 'lineage', ARGV[3])
end
redis.call('HSET', KEYS[1], 'latest', ARGV[1], 'version:' .. ARGV[1], ARGV[2])
return 1
