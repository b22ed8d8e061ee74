#!lua
-- Replaces the attributes of an element if nobody else has replaced them meanwhile.
-- KEYS[1]     the vector set
-- ARGV        the element, the attributes that are expected, the attributes that it shall have (both JSON)
-- Reply       1 if they were replaced, 0 if there are others or the element is gone
if redis.call('VGETATTR', KEYS[1], ARGV[1]) ~= ARGV[2] then
  return 0
end
return redis.call('VSETATTR', KEYS[1], ARGV[1], ARGV[3])
