-- The clock of the test build: the time is the last argument, in ticks of 1/16 microsecond since 2025-01-01T00:00:00Z.
-- The server's own time goes on meanwhile, so keys live long enough not to expire before the time of the test.
local MIN_TTL = 3600000
local SLOTS_TTL = 7200000
local function ticks()
  return tonumber(ARGV[#ARGV])
end
