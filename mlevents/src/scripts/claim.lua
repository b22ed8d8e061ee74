#!lua
-- Takes over deliveries that are due again.
-- KEYS[1] stream
-- KEYS[2] retries that were put off, by when they are due
-- ARGV[1] group
-- ARGV[2] consumer
-- ARGV[3] milliseconds without a sign after which a delivery is taken over
-- ARGV[4] id where the search begins
-- ARGV[5] how many are taken over at most
-- Reply: id where the next search begins, and for each delivery the entry and how often it was delivered
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local taken = {}
local function take(id)
  local entry = redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, id)[1]
  redis.call('ZREM', KEYS[2], id)
  if entry then
    local pending = redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1)[1]
    table.insert(taken, {entry, pending and pending[4] or 1})
  else
    -- The entry was deleted: nothing is left to be done.
    redis.call('XACK', KEYS[1], ARGV[1], id)
  end
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, ARGV[5])) do
  if redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1)[1] then
    take(id)
  else
    redis.call('ZREM', KEYS[2], id)
  end
end
local next = ARGV[4]
if #taken < tonumber(ARGV[5]) then
  local found = redis.call('XAUTOCLAIM', KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4], 'COUNT',
    ARGV[5] - #taken, 'JUSTID')
  next = found[1]
  for _, id in ipairs(found[2]) do
    local due = redis.call('ZSCORE', KEYS[2], id)
    if not due or tonumber(due) <= now then
      take(id)
    end
  end
end
return {next, taken}
