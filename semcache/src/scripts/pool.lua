#!lua
-- Counts an observation in a namespace's pool.
-- KEYS[1]     the pool: 16-bit counters, the higher byte first
-- ARGV[1]     the place of the counter
-- ARGV[2]     how often the observation counts
-- ARGV[3]     at this count all counters are halved
-- ARGV[4]     time to live, in milliseconds
-- Reply       the count
local function counter(...)
    return redis.call('BITFIELD', KEYS[1], ...)[1]
end
local count = counter('OVERFLOW', 'SAT', 'INCRBY', 'u16', '#' .. ARGV[1], ARGV[2])
if count >= tonumber(ARGV[3]) then
    local bytes = redis.call('GETRANGE', KEYS[1], 0, -1)
    for place = 0, math.floor(#bytes / 2) - 1 do
        local high, low = string.byte(bytes, place * 2 + 1, place * 2 + 2)
        counter('SET', 'u16', '#' .. place, math.floor((high * 256 + low) / 2))
    end
end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return count
