-- Looks at the queue, and changes nothing.
-- KEYS        those of the queue; see `queue_core.lua`
-- ARGV[1]     as there
-- Reply       held slots, waiting tickets, and about how many milliseconds whoever comes now waits
local free = slots - call('ZCOUNT', held, '(' .. now, '+inf')
local length = call('ZCOUNT', alive, '(' .. now, '+inf')
if length == 0 and free > 0 then return {slots - free, 0, 0} end
return {slots - free, length, estimate(length, call('HGET', state, 'h'))}
