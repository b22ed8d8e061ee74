#!lua
-- Moves an alias, if it points where the caller thinks.
-- KEYS[1]     the model's hash; no expiry: a registry is kept until it is removed
-- KEYS[2]     the model's audit stream; no expiry: it holds the last thousand changes, about
-- KEYS[3]     the hash of the version to which it shall point; absent if the alias shall go away
-- ARGV[1]     the alias
-- ARGV[2]     the version to which it points; empty if there is to be none
-- ARGV[3]     the version to which it shall point; empty to remove it
-- ARGV[4]     who does it
-- Reply       {1, ''}; {0, the version to which it points} if that is another; {-1, ''} if there is no such version;
--             {-2, ''} if that is deprecated
local field = 'alias:' .. ARGV[1]
local current = redis.call('HGET', KEYS[1], field) or ''
if current ~= ARGV[2] then
    return {0, current}
end
if ARGV[3] == '' then
    redis.call('HDEL', KEYS[1], field)
else
    local status = redis.call('HGET', KEYS[3], 'status')
    if not status then
        return {-1, ''}
    elseif status == 'deprecated' then
        return {-2, ''}
    end
    redis.call('HSET', KEYS[1], field, ARGV[3])
end
if ARGV[2] ~= ARGV[3] then
    redis.call('XADD', KEYS[2], 'MAXLEN', '~', 1000, '*', 'action', 'alias', 'subject', ARGV[1], 'from', ARGV[2],
        'to', ARGV[3], 'actor', ARGV[4])
end
return {1, ''}
