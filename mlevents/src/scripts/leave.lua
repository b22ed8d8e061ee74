#!lua
-- Removes a consumer that has no delivery: the deliveries of one that is removed never come again.
-- KEYS[1] stream
-- ARGV[1] group
-- ARGV[2] consumer
-- Reply: 1 removed or not there, 0 it has a delivery
if redis.call('EXISTS', KEYS[1]) == 0 then
  return 1
end
if redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2])[1] then
  return 0
end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 1
