-- Stores a summary, unless another was stored or the branch changed since the messages were read.
-- KEYS[1]  the session's meta hash
-- ARGV[1]  the summary's version that was read, 0 if there was none
-- ARGV[2]  the id of the last message in the summary
-- ARGV[3]  the summary
-- ARGV[4]  its tokens
-- ARGV[5]  how many messages it stands for
-- Reply    1 stored, 0 not; -1 there is no session, -2 it was erased
local have = redis.call('HMGET', KEYS[1], 'v', 'erased', 'sv')
if not have[1] then
    return have[2] and -2 or -1
end
if (have[3] or '0') ~= ARGV[1] then
    return 0
end
redis.call('HSET', KEYS[1], 'sv', ARGV[1] + 1, 'upto', ARGV[2], 'summary', ARGV[3], 'sumtok', ARGV[4], 'sumn', ARGV[5])
return 1
