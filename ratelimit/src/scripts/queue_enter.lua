-- Takes a slot if one is free and nobody waits for it, else a place in the queue.
-- KEYS        those of the queue; see `queue_core.lua`
-- ARGV[1]     as there
-- ARGV[2]     the ticket
-- ARGV[3]     the tenant
-- ARGV[4]     packed little-endian: f64 weight, u16 priority (0 is the first), u32 how many may wait (0 none)
-- Reply       1 held; or 0 not queued, 2 waits: then the place (0 is the next) and about how many milliseconds it takes
local id, tenant = ARGV[2], ARGV[3]
local weight, priority, room = struct.unpack('<dHI', ARGV[4])
local length, count = call('ZCARD', waiting), used()
if count < slots and length > 0 then
  hand_on()
  length, count = call('ZCARD', waiting), used()
end
if count < slots and length == 0 then
  call('ZADD', held, now + lease, id)
  call('PEXPIRE', held, QUEUE_TTL)
  return {1, 0, 0}
end
-- The same ticket again, whose reply was lost.
if call('ZSCORE', held, id) then return {1, 0, 0} end
local v, finish, h = unpack(call('HMGET', state, 'v', 'f:' .. tenant, 'h'))
local place = length > 0 and call('ZRANK', waiting, id)
if place then return {2, place, estimate(place, h)} end
if length >= room and length > 0 then
  for _, dead in ipairs(call('ZRANGEBYSCORE', alive, '-inf', now)) do
    call('ZREM', waiting, dead)
    call('ZREM', alive, dead)
  end
  length = call('ZCARD', waiting)
end
if length >= room then return {0, length, estimate(length, h)} end
if length == 0 then
  -- Nobody is behind or ahead of anybody when nobody waits.
  call('DEL', state)
  if h then call('HSET', state, 'h', h) end
  v, finish = 0, 0
end
v = tonumber(v or 0)
local start = math.max(v, tonumber(finish or 0))
call('HSET', state, 'f:' .. tenant, string.format('%.0f', start + 1000 / weight), 'v', string.format('%.0f', v))
call('ZADD', waiting, string.format('%.0f', priority * CLASS + start), id)
call('ZADD', alive, now + patience, id)
-- Whoever waits is heard of within `patience`, and that keeps the keys.
if length == 0 then keep() end
place = call('ZRANK', waiting, id)
return {2, place, estimate(place, h)}
