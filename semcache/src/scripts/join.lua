#!lua
-- Notes that the answer of an entry agrees with that of another, unless the entry is gone.
-- KEYS[1]     the entry's hash; its expiry stays
-- ARGV[1]     the id of the other
-- Reply       1 if the entry is there, else 0
if redis.call('EXISTS', KEYS[1]) == 0 then
    return 0
end
redis.call('HSET', KEYS[1], 'kin', ARGV[1])
return 1
