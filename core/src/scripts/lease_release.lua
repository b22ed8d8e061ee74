-- Gives a lease back, if it is still held with this token.
-- KEYS[1]  the lease
-- ARGV[1]  the fencing token
-- Reply    1 if it was held, else 0.
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then
    return 0
end
return redis.call('DEL', KEYS[1])
