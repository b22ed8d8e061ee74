-- Says that tickets are alive, renews leases, and hands on what crashed holders left.
-- KEYS        those of the queue; see `queue_core.lua`
-- ARGV[1]     as there
-- ARGV[2]     how many tickets follow
-- ARGV[3..]   the tickets, waiting or holding
-- Reply       how many milliseconds slots are held on average; per ticket: -1 holds a slot, -2 is gone, else its place in
--             the queue
local reply = {floor(call('HGET', state, 'h') or 1000)}
for i = 3, ARGV[2] + 2 do
  if call('ZSCORE', waiting, ARGV[i]) then call('ZADD', alive, now + patience, ARGV[i]) end
end
hand_on()
for i = 3, ARGV[2] + 2 do
  local id = ARGV[i]
  if call('ZSCORE', held, id) then
    call('ZADD', held, 'XX', now + lease, id)
    reply[i - 1] = -1
  else
    reply[i - 1] = call('ZRANK', waiting, id) or -2
  end
end
keep()
return reply
