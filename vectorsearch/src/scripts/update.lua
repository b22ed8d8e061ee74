#!lua
-- Sets fields of a document that exists; one that was removed meanwhile does not come back.
-- KEYS[1]     the document's hash; its expiry stays as it is
-- ARGV        names and values of fields, alternating
-- Reply       1 if the document was there, else 0
if redis.call('EXISTS', KEYS[1]) == 0 then
  return 0
end
redis.call('HSET', KEYS[1], unpack(ARGV))
return 1
