#!lua
-- Removes old entries that no group needs.
-- KEYS[1] stream
-- ARGV[1] milliseconds after which entries are old, or -1
-- ARGV[2] how many entries are kept, or -1
-- ARGV[3] how many entries are kept also against the groups, or -1
-- ARGV[4] how many entries are looked at in one call
-- Reply: how many were removed, groups that held entries, groups that lost some, and 1 if there is more to do
local function parse(id)
  local millis, sequence = string.match(id, '^(%d+)-(%d+)$')
  return {tonumber(millis), tonumber(sequence), id}
end
local function less(a, b)
  return a[1] < b[1] or (a[1] == b[1] and a[2] < b[2])
end
if redis.call('EXISTS', KEYS[1]) == 0 then
  return {0, {}, {}, 0}
end
-- The first entry that each group needs.
local needs = {}
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local fields = {}
  for place = 1, #group, 2 do
    fields[group[place]] = group[place + 1]
  end
  local first
  if fields['pending'] > 0 then
    first = parse(redis.call('XPENDING', KEYS[1], fields['name'])[2])
  else
    local last = parse(fields['last-delivered-id'])
    if last[2] < 2 ^ 53 then
      local text = string.match(last[3], '^(%d+)-') .. '-' .. string.format('%.0f', last[2] + 1)
      first = {last[1], last[2] + 1, text}
    else
      -- A group that begins at a time: nothing follows its place within the millisecond.
      first = last
    end
  end
  table.insert(needs, {fields['name'], first})
end
-- The first entry that is wanted.
local length = redis.call('XLEN', KEYS[1])
local limit = tonumber(ARGV[4])
local wanted, more
local function want(id)
  local parsed = parse(id)
  if not wanted or less(wanted, parsed) then
    wanted = parsed
  end
end
local age, keep, hard = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
if age >= 0 then
  local time = redis.call('TIME')
  want(string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) - age) .. '-0')
end
local function first_kept(kept)
  local over = length - kept
  if over <= 0 then
    return nil
  end
  more = more or over > limit
  local last
  for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', math.min(over, limit) + 1)) do
    last = entry[1]
  end
  if over >= length and over <= limit then
    -- Nothing is kept.
    local parsed = parse(redis.call('XINFO', 'STREAM', KEYS[1])[8])
    return string.match(parsed[3], '^(%d+)-') .. '-' .. string.format('%.0f', parsed[2] + 1)
  end
  return last
end
if keep >= 0 then
  local id = first_kept(keep)
  if id then
    want(id)
  end
end
local removed, held, lost = 0, {}, {}
if wanted then
  local safe = wanted
  local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
  for _, need in ipairs(needs) do
    if less(need[2], wanted) and last and not less(parse(last[1]), need[2]) then
      table.insert(held, need[1])
    end
    if less(need[2], safe) then
      safe = need[2]
    end
  end
  removed = redis.call('XTRIM', KEYS[1], 'MINID', '=', safe[3])
  if removed == 0 then
    more = false
  end
  length = length - removed
end
if hard >= 0 and length > hard then
  local id = first_kept(hard)
  if id then
    local cut = parse(id)
    for _, need in ipairs(needs) do
      if less(need[2], cut) then
        table.insert(lost, need[1])
      end
    end
    removed = removed + redis.call('XTRIM', KEYS[1], 'MINID', '=', id)
  end
end
return {removed, held, lost, more and 1 or 0}
