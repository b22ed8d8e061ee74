-- The clock of every script of this crate: it is put before their source.
-- A tick is 1/16 microsecond; they are counted from 2025-01-01T00:00:00Z, so that they stay exact in a double until 2042.
-- MIN_TTL is the shortest expiry of a key, SLOTS_TTL that of slots, longer than every lease; in milliseconds.
local MIN_TTL = 1000
local SLOTS_TTL = 7200000
local function ticks()
  local time = redis.call('TIME')
  return (time[1] - 1735689600) * 16000000 + time[2] * 16
end
