#!lua
-- Creates a session unless there is one.
-- KEYS[1]    the session's meta hash
-- ARGV[1]    how long it lives, in milliseconds
-- ARGV[2]    the user
-- ARGV[3..]  names and values of further fields, alternating
-- Reply      1 created, 0 it was there; -2 it was erased, -4 it belongs to another user
local have = redis.call('HMGET', KEYS[1], 'v', 'erased', 'user')
if have[2] then
    return -2
end
if have[1] then
    return have[3] == ARGV[2] and 0 or -4
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'v', 1, 'last', '', 'n', 0, 'tok', 0, 'exp', now + ARGV[1], 'idx', now, 'created', now,
    'user', ARGV[2], unpack(ARGV, 3))
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
