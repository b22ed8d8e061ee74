#!lua
-- Stores a packed row, unless a newer event is stored.
-- KEYS[1] row
-- ARGV[1] the row; bytes 7 to 13 are the event's time
-- ARGV[2] milliseconds that the row lives, 0 for ever
-- Reply: 1 stored, 0 a newer event is there
-- Rows of groups without a TTL have no expiry: features are the only copy on the serving path.
local row = ARGV[1]
local stored = redis.call('GETRANGE', KEYS[1], 0, 12)
if #stored == 13 and string.sub(stored, 1, 4) == string.sub(row, 1, 4) then
  local high, low = struct.unpack('>I3I4', stored, 7)
  local new_high, new_low = struct.unpack('>I3I4', row, 7)
  if high > new_high or (high == new_high and low > new_low) then
    return 0
  end
end
if ARGV[2] == '0' then
  redis.call('SET', KEYS[1], row)
else
  redis.call('SET', KEYS[1], row, 'PX', ARGV[2])
end
return 1
