#!lua flags=no-writes
-- Reads an entry, and the epoch in which entries of its tenant are valid.
-- KEYS[1]     the entry's hash
-- KEYS[2]     the tenant's epoch
-- ARGV[1]     1 if the time is wanted, else 0
-- ARGV[2..]   names of fields
-- Reply       the values of the fields, the epoch, and the time if wanted, in seconds of the server's clock; nil for what
--             is not there
local found = redis.call('HMGET', KEYS[1], unpack(ARGV, 2))
found[#ARGV] = redis.call('GET', KEYS[2])
if ARGV[1] == '1' then
    found[#ARGV + 1] = redis.call('TIME')[1]
end
return found
