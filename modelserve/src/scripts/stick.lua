#!lua
-- Keeps the first assignment of a unit.
-- KEYS[1]     the unit's hash
-- ARGV[1]     the experiment and its bucket version
-- ARGV[2]     the arm that would be assigned now
-- ARGV[3]     time to live from now on, in milliseconds; never shortened
-- Reply       the arm that was assigned first
local arm = redis.call('HGET', KEYS[1], ARGV[1])
if not arm then
    arm = ARGV[2]
    redis.call('HSET', KEYS[1], ARGV[1], arm)
end
-- GT leaves a key without an expiry as it is, and a new one has none.
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then
    redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return arm
