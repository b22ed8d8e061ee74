-- Gives back slots and places of the queue, and hands slots on.
-- KEYS        those of the queue; see `queue_core.lua`
-- ARGV[1]     as there
-- ARGV[2]     what all tickets of the caller begin with
-- ARGV[3]     how many tickets follow
-- ARGV[4..]   per ticket: the ticket, and for how many milliseconds it held a slot (-1: unknown)
-- Reply       how many of them held a slot or waited, and which other tickets of the caller were handed a slot
local count, h = 0, nil
for i = 4, 2 * ARGV[3] + 3, 2 do
  local id, took = ARGV[i], tonumber(ARGV[i + 1])
  if call('ZREM', held, id) == 1 then
    count = count + 1
    if took >= 0 then
      h = tonumber(h or call('HGET', state, 'h') or took)
      h = h + (took - h) / 8
    end
  elseif call('ZREM', waiting, id) == 1 then
    count = count + 1
    call('ZREM', alive, id)
  end
end
return {count, hand_on(ARGV[2], h and string.format('%.0f', h))}
