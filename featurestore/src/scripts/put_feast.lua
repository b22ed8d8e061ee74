#!lua
-- Stores the values of a view in Feast's layout, unless a newer event of the view is stored.
-- KEYS[1] hash of the entity
-- ARGV[1] field of the view's time
-- ARGV[2] time of the event, as a protobuf timestamp
-- ARGV[3] its seconds
-- ARGV[4] its nanoseconds
-- ARGV[5] milliseconds that the entity lives, 0 for ever
-- ARGV[6] and following: fields and values, in turn
-- Reply: 1 stored, 0 a newer event is there
-- The hash has no expiry where Feast is not told to set one either.
local stored = redis.call('HGET', KEYS[1], ARGV[1])
if stored then
  -- Field 1 holds the seconds and field 2 the nanoseconds, as varints.
  local parts = {0, 0}
  local place = 1
  while place <= #stored do
    local field = math.floor(string.byte(stored, place) / 8)
    local value, scale = 0, 1
    repeat
      place = place + 1
      local byte = string.byte(stored, place) or 0
      value = value + (byte % 128) * scale
      scale = scale * 128
    until byte < 128
    parts[field] = value
    place = place + 1
  end
  -- Times before 1970 are varints of ten bytes, and count as older than all others.
  if parts[1] < 2 ^ 53 then
    local seconds, nanos = tonumber(ARGV[3]), tonumber(ARGV[4])
    if parts[1] > seconds or (parts[1] == seconds and parts[2] > nanos) then
      return 0
    end
  end
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
-- What unpack puts on the stack is limited.
for first = 6, #ARGV, 2000 do
  redis.call('HSET', KEYS[1], unpack(ARGV, first, math.min(first + 1999, #ARGV)))
end
if ARGV[5] ~= '0' then
  redis.call('PEXPIRE', KEYS[1], ARGV[5])
end
return 1
