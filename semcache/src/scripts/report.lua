#!lua
-- Notes that an entry is wrong for a request, unless the entry is gone: it must not come back without its other fields.
-- KEYS[1]     the entry's hash; its expiry stays
-- ARGV[1]     the id of the request, 64 characters
-- Reply       1 if the entry is there, else 0
-- The newest 64 ids are kept.
if redis.call('EXISTS', KEYS[1]) == 0 then
    return 0
end
local ids = redis.call('HGET', KEYS[1], 'wrong_for') or ''
for place = 1, #ids, 64 do
    if string.sub(ids, place, place + 63) == ARGV[1] then
        return 1
    end
end
redis.call('HSET', KEYS[1], 'wrong_for', string.sub(ids .. ARGV[1], -64 * 64))
return 1
