#!lua
-- Publishes a dead letter again, for one group.
-- KEYS[1] stream
-- KEYS[2] dead letters
-- ARGV[1] id of the dead letter
-- ARGV[2] field that names the group
-- ARGV[3] group
-- ARGV[4] what the fields of dead letters begin with
-- Reply: 1 published, 0 the dead letter is gone
-- The stream has no expiry: events stay until they are trimmed.
local letter = redis.call('XRANGE', KEYS[2], ARGV[1], ARGV[1])[1]
if not letter then
  return 0
end
local fields = {}
for place = 1, #letter[2], 2 do
  local name = letter[2][place]
  if string.sub(name, 1, #ARGV[4]) ~= ARGV[4] and name ~= ARGV[2] then
    table.insert(fields, name)
    table.insert(fields, letter[2][place + 1])
  end
end
table.insert(fields, ARGV[2])
table.insert(fields, ARGV[3])
redis.call('XADD', KEYS[1], '*', unpack(fields))
redis.call('XDEL', KEYS[2], ARGV[1])
return 1
