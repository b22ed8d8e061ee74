#!lua
-- Acknowledges entries, and notes how far the group has come.
-- KEYS[1] stream
-- KEYS[2] how far each group has come
-- KEYS[3] retries that were put off
-- ARGV[1] group
-- ARGV[2] and following: ids of entries
-- Reply: how many had not been acknowledged
-- How far a group has come has no expiry: it is for when the stream is lost.
local acked = redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, 2))
if redis.call('EXISTS', KEYS[3]) == 1 then
  redis.call('ZREM', KEYS[3], unpack(ARGV, 2))
end
if acked > 0 then
  local pending = redis.call('XPENDING', KEYS[1], ARGV[1])
  if pending[1] > 0 then
    redis.call('HSET', KEYS[2], ARGV[1], '<' .. pending[2])
  else
    for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
      local fields = {}
      for place = 1, #group, 2 do
        fields[group[place]] = group[place + 1]
      end
      if fields['name'] == ARGV[1] then
        redis.call('HSET', KEYS[2], ARGV[1], fields['last-delivered-id'])
      end
    end
  end
end
return acked
