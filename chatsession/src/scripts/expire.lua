-- Deletes a session whose time has come, unless something has happened in it since.
-- KEYS[1]  the session's log
-- KEYS[2]  the session's meta hash
-- ARGV[1]  the id of its last message, as it was read
-- Reply    1 deleted, 0 not
local have = redis.call('HMGET', KEYS[2], 'last', 'drafts')
if have[1] ~= ARGV[1] or (have[2] and tonumber(have[2]) > 0) then
    return 0
end
redis.call('UNLINK', KEYS[1], KEYS[2])
return 1
