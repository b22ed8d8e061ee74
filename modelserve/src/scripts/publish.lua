#!lua
-- Publishes a version of a model.
-- KEYS[1]     the model's hash; no expiry: a registry is kept until it is removed
-- KEYS[2]     the version's hash; no expiry
-- KEYS[3]     the model's audit stream; no expiry: it holds the last thousand changes, about
-- ARGV[1]     the version
-- ARGV[2]     the digest of its contents
-- ARGV[3]     its status
-- ARGV[4..]   names and values of its fields, alternating
-- Reply       1 if it was published, 0 if it is there with the same digest, -1 if with another
local digest = redis.call('HGET', KEYS[2], 'digest')
if digest then
    return digest == ARGV[2] and 0 or -1
end
local number = redis.call('HINCRBY', KEYS[1], 'published', 1)
redis.call('HSET', KEYS[1], 'version:' .. ARGV[1], number)
redis.call('HSET', KEYS[2], 'digest', ARGV[2], 'status', ARGV[3], 'created_at', redis.call('TIME')[1], unpack(ARGV, 4))
redis.call('XADD', KEYS[3], 'MAXLEN', '~', 1000, '*', 'action', 'publish', 'subject', ARGV[1], 'from', '', 'to', ARGV[3],
    'actor', '')
return 1
