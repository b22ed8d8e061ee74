-- What every script of the queue shares; it is put before their source.
-- KEYS[1]     held: zset of tickets by the end of their lease
-- KEYS[2]     waiting: zset of tickets by priority * 2^40 + virtual start in thousandths (start-time fair queueing)
-- KEYS[3]     alive: zset of waiting tickets by when they count as dead
-- KEYS[4]     state: hash of the virtual time `v`, hand-offs in a row `g`, mean time of holding `h` in ms, and the
--             virtual finish of each tenant, `f:<tenant>`
-- KEYS[5]     granted: stream of tickets that were handed a slot, from which the processes are woken
-- ARGV[1]     packed little-endian: u32 slots, u32 lease ms, u32 claim ms, u32 patience ms (a waiter that is not heard of
--             for so long is dead), u32 the hand-offs in a row after which a lower priority has its turn
-- Reply       of each script in its own header
local call, floor = redis.call, math.floor
local held, waiting, alive, state, granted = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local slots, lease, claim, patience, turn = struct.unpack('<IIIII', ARGV[1])
local CLASS = 1099511627776
local QUEUE_TTL = 7200000
local time = call('TIME')
local now = time[1] * 1000 + floor(time[2] / 1000)

-- How many slots are held; leases that are over hold nothing.
local function used()
  local count = call('ZCARD', held)
  if count >= slots then
    call('ZREMRANGEBYSCORE', held, '-inf', now)
    count = call('ZCARD', held)
  end
  return count
end

-- Hands free slots to those who wait, and skips the dead.
local function hand_on()
  local free = slots - used()
  while free > 0 do
    local first = call('ZRANGE', waiting, 0, 0, 'WITHSCORES')
    if not first[1] then return end
    local g = tonumber(call('HGET', state, 'g') or 0)
    local class = floor(first[2] / CLASS)
    if g >= turn then
      local lower = call('ZRANGEBYSCORE', waiting, string.format('%.0f', (class + 1) * CLASS), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
      if lower[1] then first = lower end
      g = -1
    end
    local id = first[1]
    local ends = tonumber(call('ZSCORE', alive, id) or 0)
    call('ZREM', waiting, id)
    call('ZREM', alive, id)
    if ends > now then
      call('ZADD', held, now + claim, id)
      call('XADD', granted, 'MAXLEN', '~', 1000, '*', 'id', id)
      call('HSET', state, 'v', string.format('%.0f', first[2] % CLASS), 'g', g + 1)
      free = free - 1
    end
  end
end

-- What is in use does not expire while it is used.
local function keep()
  for i = 1, 5 do call('PEXPIRE', KEYS[i], QUEUE_TTL) end
end

-- How long a place in the queue takes about, in milliseconds.
local function estimate(place)
  local h = tonumber(call('HGET', state, 'h') or 1000)
  return floor(math.ceil((place + 1) / slots) * h)
end
