#!lua
-- Writes a cache entry in the place of an older one, so that nothing of the older one is left, and sets its expiry.
-- KEYS[1]     the entry's hash
-- KEYS[2]     the tenant's epoch; absent where it lies in another slot, and the epoch is then ARGV[2]
-- ARGV[1]     time to live, in milliseconds
-- ARGV[2]     the epoch at the time of the lookup, or empty if there was none
-- ARGV[3]     a new epoch, for a tenant that has none
-- ARGV[4]     fencing token, an integer; 0 for none
-- ARGV[5]     when the entry was first stored, in seconds since the Unix epoch; empty for now, by the server's clock
-- ARGV[6]     the scope, to which the epoch is added
-- ARGV[7..]   names and values of further fields, alternating
-- Reply       1 if the entry was written; 0 if the tenant has another epoch by now; -1 if the entry there was written
--             with a greater fencing token
-- The line `#!lua` makes the server refuse the whole script when its memory is full: without it a first write that frees
-- memory lifts that check.
local epoch = ARGV[2]
local fence = tonumber(ARGV[4])
if fence > 0 and (tonumber(redis.call('HGET', KEYS[1], 'fence') or 0) or 0) > fence then
    return -1
end
if KEYS[2] then
    local current = redis.call('GET', KEYS[2])
    if not current then
        epoch = ARGV[3]
        redis.call('SET', KEYS[2], epoch, 'PX', ARGV[1])
    elseif epoch ~= '' and epoch ~= current then
        return 0
    else
        epoch = current
        -- The epoch lives as long as the last of its entries.
        redis.call('PEXPIRE', KEYS[2], ARGV[1], 'GT')
    end
end
local timestamp = ARGV[5]
if timestamp == '' then
    timestamp = redis.call('TIME')[1]
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'timestamp', timestamp, 'scope', ARGV[6] .. epoch, 'ttl', ARGV[1], unpack(ARGV, 7))
if fence > 0 then
    redis.call('HSET', KEYS[1], 'fence', ARGV[4])
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
