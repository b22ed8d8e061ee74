-- Erases a session and leaves a tombstone, by which late writers see it.
-- KEYS[1]  the session's log
-- KEYS[2]  the session's meta hash; the tombstone is a hash with the one field 'erased'
-- ARGV[1]  how long the tombstone stays, in milliseconds
-- ARGV[2]  the user, or '' for any: another user's session stays
-- Reply    1 there was one, 0 there was none, -4 it belongs to another user; then its user or '', then the turns of its drafts
local user = redis.call('HGET', KEYS[2], 'user')
if user and ARGV[2] ~= '' and user ~= ARGV[2] then
    return {-4}
end
local reply = {user and 1 or 0, user or ''}
for _, field in ipairs(redis.call('HKEYS', KEYS[2])) do
    if string.sub(field, 1, 2) == 'd:' then
        reply[#reply + 1] = string.sub(field, 3)
    end
end
redis.call('UNLINK', KEYS[1], KEYS[2])
redis.call('HSET', KEYS[2], 'erased', 1)
redis.call('PEXPIRE', KEYS[2], ARGV[1])
return reply
