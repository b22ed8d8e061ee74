-- What every script of the queue shares; it is put before their source.
-- KEYS[1]     held: zset of tickets by the end of their lease
-- KEYS[2]     waiting: zset of tickets by priority * 2^40 + virtual start in thousandths (start-time fair queueing)
-- KEYS[3]     alive: zset of waiting tickets by when they count as dead
-- KEYS[4]     state: hash of the virtual time `v`, hand-offs in a row `g`, mean time of holding `h` in ms, and the
--             virtual finish of each tenant, `f:<tenant>`
-- KEYS[5]     granted: stream of tickets that were handed a slot by another process than their own, which is woken by it
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
  if count >= slots then count = count - call('ZREMRANGEBYSCORE', held, '-inf', now) end
  return count
end

-- Takes the next who waits out of the queue: the first, or after `turn` hand-offs in a row the first of a lower priority.
-- Returns the ticket, its score, and the hand-offs in a row; nothing if nobody waits.
local function pop(g)
  if g >= turn then
    local first = call('ZRANGE', waiting, 0, 0, 'WITHSCORES')
    if not first[1] then return end
    local lower = string.format('%.0f', (floor(first[2] / CLASS) + 1) * CLASS)
    local other = call('ZRANGEBYSCORE', waiting, lower, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    if other[1] then
      call('ZREM', waiting, other[1])
      return other[1], other[2], 0
    end
    g = -1
  end
  local first = call('ZPOPMIN', waiting)
  return first[1], first[2], g + 1
end

-- Hands free slots to those who wait, and skips the dead. Tickets that begin with `own` are returned, for they are the
-- caller's; the others are told through the stream. `h` is a new mean time of holding, if there is one.
local function hand_on(own, h)
  local free, mine = slots - used(), {}
  local g, v = nil, nil
  while free > 0 do
    g = g or tonumber(call('HGET', state, 'g') or 0)
    local id, score, after = pop(g)
    if not id then break end
    local ends = tonumber(call('ZSCORE', alive, id) or 0)
    call('ZREM', alive, id)
    if ends > now then
      call('ZADD', held, now + claim, id)
      if own and string.sub(id, 1, #own) == own then
        mine[#mine + 1] = id
      else
        call('XADD', granted, 'MAXLEN', '~', 1000, '*', 'id', id)
        call('PEXPIRE', granted, QUEUE_TTL)
      end
      g, v = after, string.format('%.0f', score % CLASS)
      free = free - 1
    end
  end
  if v and h then call('HSET', state, 'v', v, 'g', g, 'h', h)
  elseif v then call('HSET', state, 'v', v, 'g', g)
  elseif h then
    call('HSET', state, 'h', h)
    call('PEXPIRE', state, QUEUE_TTL)
  end
  return mine
end

-- What is in use does not expire while it is used.
local function keep()
  for i = 1, 5 do call('PEXPIRE', KEYS[i], QUEUE_TTL) end
end

-- How long a place in the queue takes about, in milliseconds, by the mean time of holding.
local function estimate(place, h)
  return floor(math.ceil((place + 1) / slots) * (tonumber(h) or 1000))
end
