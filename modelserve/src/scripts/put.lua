#!lua
-- Replaces a record if it has the expected revision, so that nothing of the older one is left.
-- KEYS[1]     the record's hash; it has no expiry: an experiment or a flag lives until it is removed
-- ARGV[1]     the expected revision; 0 if there is to be none
-- ARGV[2..]   names and values of fields, alternating
-- Reply       {1, the new revision}, or {0, the revision that is there}
local current = tonumber(redis.call('HGET', KEYS[1], 'revision') or '0') or 0
if current ~= tonumber(ARGV[1]) then
    return {0, current}
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'revision', current + 1, 'updated_at', redis.call('TIME')[1], unpack(ARGV, 2))
return {1, current + 1}
