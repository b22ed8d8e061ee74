-- Renews the leases of slots that are still held.
-- KEYS[1]     the slots
-- ARGV[1]     the lease, in milliseconds
-- ARGV[2]     how many request ids follow
-- ARGV[3..]   the request ids
-- Reply       per id 1 if it was renewed, 0 if its slot is gone
local ends = math.floor(ticks() / 16000) + ARGV[1]
local reply = {}
for i = 3, ARGV[2] + 2 do
  local held = redis.call('ZSCORE', KEYS[1], ARGV[i]) and 1 or 0
  if held == 1 then redis.call('ZADD', KEYS[1], 'XX', ends, ARGV[i]) end
  reply[i - 2] = held
end
redis.call('PEXPIRE', KEYS[1], SLOTS_TTL)
return reply
