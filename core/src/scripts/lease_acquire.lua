-- Takes a lease, or renews it for the owner that has it.
-- KEYS[1]  the lease, a hash of owner and token; it expires with the lease.
-- ARGV[1]  the owner
-- ARGV[2]  how long the lease lasts, in milliseconds
-- Reply    the fencing token, an integer; 0 if somebody else has the lease.
--
-- The token is the server's time in microseconds, so it grows although an expired lease leaves nothing behind; scripts run
-- one at a time and take longer than a microsecond. It stays below 2^53 until the year 2255.
local held = redis.call('HMGET', KEYS[1], 'owner', 'token')
local token
if held[1] == ARGV[1] then
    token = tonumber(held[2])
elseif held[1] then
    return 0
else
    local time = redis.call('TIME')
    token = time[1] * 1000000 + time[2]
    redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'token', string.format('%.0f', token))
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return token
