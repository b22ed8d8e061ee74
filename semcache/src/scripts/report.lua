#!lua
-- Notes what was reported of an entry, unless the entry is gone: it must not come back without its other fields.
-- KEYS[1]     the entry's hash; its expiry stays
-- ARGV[1]     the id of the request that the entry is wrong for, 64 characters; empty if it was right
-- ARGV[2]     an observation for the adaptive policy, 4 characters; may be empty
-- ARGV[3]     how many characters of observations are kept
-- Reply       1 if the entry is there, else 0
-- The newest 64 ids are kept.
if redis.call('EXISTS', KEYS[1]) == 0 then
    return 0
end
if ARGV[2] ~= '' then
    local seen = redis.call('HGET', KEYS[1], 'observations') or ''
    redis.call('HSET', KEYS[1], 'observations', string.sub(seen .. ARGV[2], -tonumber(ARGV[3])))
end
if ARGV[1] == '' then
    return 1
end
local ids = redis.call('HGET', KEYS[1], 'wrong_for') or ''
for place = 1, #ids, 64 do
    if string.sub(ids, place, place + 63) == ARGV[1] then
        return 1
    end
end
redis.call('HSET', KEYS[1], 'wrong_for', string.sub(ids .. ARGV[1], -64 * 64))
return 1
