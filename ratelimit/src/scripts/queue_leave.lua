-- Gives back slots and places of the queue, and hands slots on.
-- KEYS        those of the queue; see `queue_core.lua`
-- ARGV[1]     as there
-- ARGV[2]     how many tickets follow
-- ARGV[3..]   per ticket: the ticket, and for how many milliseconds it held a slot (-1: unknown)
-- Reply       how many of them held a slot or waited
local count = 0
for i = 3, 2 * ARGV[2] + 2, 2 do
  local id, took = ARGV[i], tonumber(ARGV[i + 1])
  if call('ZREM', held, id) == 1 then
    count = count + 1
    if took >= 0 then
      local h = tonumber(call('HGET', state, 'h') or took)
      call('HSET', state, 'h', string.format('%.0f', h + (took - h) / 8))
      call('PEXPIRE', state, QUEUE_TTL)
    end
  elseif call('ZREM', waiting, id) == 1 then
    count = count + 1
    call('ZREM', alive, id)
  end
end
hand_on()
return count
