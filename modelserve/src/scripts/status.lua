#!lua
-- Sets the status of a version.
-- KEYS[1]     the model's hash; no expiry: a registry is kept until it is removed
-- KEYS[2]     the version's hash; no expiry
-- KEYS[3]     the model's audit stream; no expiry: it holds the last thousand changes, about
-- ARGV[1]     the version
-- ARGV[2]     the status, active or deprecated
-- ARGV[3]     who does it
-- Reply       {1, ''}; {-1, ''} if there is no such version; {0, an alias} if it is to be deprecated and the alias points
--             to it
local before = redis.call('HGET', KEYS[2], 'status')
if not before then
    return {-1, ''}
end
if ARGV[2] == 'deprecated' then
    local fields = redis.call('HGETALL', KEYS[1])
    for place = 1, #fields, 2 do
        if fields[place + 1] == ARGV[1] and string.sub(fields[place], 1, 6) == 'alias:' then
            return {0, string.sub(fields[place], 7)}
        end
    end
end
if before ~= ARGV[2] then
    redis.call('HSET', KEYS[2], 'status', ARGV[2])
    redis.call('XADD', KEYS[3], 'MAXLEN', '~', 1000, '*', 'action', 'status', 'subject', ARGV[1], 'from', before,
        'to', ARGV[2], 'actor', ARGV[3])
end
return {1, ''}
