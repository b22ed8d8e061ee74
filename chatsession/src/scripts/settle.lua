-- Gives claimed sessions back with their next deadlines, except where somebody else has set one meanwhile.
-- KEYS[1]    a partition of the due-set; it does not expire, see schedule.lua
-- ARGV[1..]  three per session: its id, the end of the lease in milliseconds, the next deadline in milliseconds or '' for none
-- Reply      how many were given back, an integer
local settled = 0
for i = 1, #ARGV, 3 do
    local held = redis.call('ZSCORE', KEYS[1], ARGV[i])
    if held and tonumber(held) == tonumber(ARGV[i + 1]) then
        settled = settled + 1
        if ARGV[i + 2] == '' then
            redis.call('ZREM', KEYS[1], ARGV[i])
        else
            redis.call('ZADD', KEYS[1], ARGV[i + 2], ARGV[i])
        end
    end
end
return settled
