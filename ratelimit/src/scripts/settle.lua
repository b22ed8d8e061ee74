-- Charges or gives back the difference between what a request reserved and what it used, and frees its slots.
-- KEYS        one per group of ARGV[2], and then the record of the request id if there is one; all in one hash slot
-- ARGV[1]     the request id
-- ARGV[2]     packed little-endian: u8 whether there is a record, u16 groups, u16 the group whose members are the record
--             of request ids (0 none), f64 the tick of the acquisition; the groups as in `acquire`; per tier:
--             u8 algorithm, f64 difference (GCRA: ticks of 1/16 us, else units), f64 the cost that was reserved,
--             f64 period (in ticks)
-- Reply       1 settled; 0 if nothing is held under this id any more, and nothing was changed
-- A difference may make a debt: it delays later requests. What is given back to a window that is over is dropped.
-- A string that has gone is full again.
local id, spec, call, floor, max = ARGV[1], ARGV[2], redis.call, math.floor, math.max
local unpack_, pack = struct.unpack, struct.pack
local now = ticks()
local has_record, groups, holder, acquired, start = unpack_('<BHHd', spec)
local pos = start
-- Nothing is changed before all is known to be readable.
for g = 1, groups do
  local kind, count, header
  kind, count, pos = unpack_('<BH', spec, pos)
  if kind == 1 then
    header, pos = unpack_('c4', spec, pos)
    local raw = call('GETRANGE', KEYS[g], 0, 3)
    if raw ~= '' and raw ~= header then
      return redis.error_reply('RATELIMIT unknown state in a key: remove it, or use another namespace')
    end
  end
  pos = pos + 25 * count
end
if has_record == 1 then
  if call('DEL', KEYS[groups + 1]) == 0 then return 0 end
elseif holder > 0 then
  if call('ZREM', KEYS[holder], id) == 0 then return 0 end
end
pos = start
for g = 1, groups do
  local key, kind, count, header = KEYS[g], nil, nil, nil
  kind, count, pos = unpack_('<BH', spec, pos)
  if kind == 1 then
    header, pos = unpack_('c4', spec, pos)
    local raw, at, shift, longest, changed = call('GET', key), 13, 0, 0, false
    local state, s = {}, 0
    if raw then
      local last = unpack_('<d', raw, 5)
      if now < last then shift = last - now end
    end
    for _ = 1, count do
      local algorithm, delta, period, _
      algorithm, delta, _, period, pos = unpack_('<Bddd', spec, pos)
      if delta ~= 0 then changed = true end
      local ttl
      if algorithm == 1 then
        local tat = now
        if raw then
          tat, at = unpack_('<d', raw, at)
          tat = max(tat - shift, now)
        end
        -- Arrival times stay exact integers, far beyond every window.
        tat = math.min(max(tat + delta, now), now + 4503599627370496)
        ttl = tat - now
        s = s + 1
        state[s] = tat
      else
        local index, then_, count_now, previous
        if algorithm == 4 then index, then_ = month_of(now), month_of(acquired)
        else index, then_ = floor(now / period), floor(acquired / period) end
        count_now, previous = 0, 0
        if raw then
          local i, c, p
          i, c, at = unpack_('<dd', raw, at)
          if algorithm == 3 then p, at = unpack_('<d', raw, at) end
          if i >= index then index, count_now, previous = i, c, p or 0
          elseif i == index - 1 then previous = c end
        end
        if then_ >= index then count_now = max(count_now + delta, 0)
        elseif algorithm == 3 and then_ == index - 1 then previous = max(previous + delta, 0)
        elseif delta > 0 then count_now = count_now + delta end
        if algorithm == 4 then ttl = first_day(index + 1) * DAY - now else ttl = (index + 1) * period - now end
        if algorithm == 3 then ttl = ttl + period end
        state[s + 1], state[s + 2] = index, count_now
        s = s + 2
        if algorithm == 3 then
          s = s + 1
          state[s] = previous
        end
      end
      if ttl > longest then longest = ttl end
    end
    if changed then
      local ttl = math.ceil(longest / 16000)
      call('SETRANGE', key, 0, header .. pack('<' .. string.rep('d', s + 1), now, unpack(state)))
      call('PEXPIRE', key, ttl > MIN_TTL and ttl or MIN_TTL)
    end
  else
    local _, delta, cost, period
    _, delta, cost, period, pos = unpack_('<Bddd', spec, pos)
    if kind == 2 then
      if g ~= holder then call('ZREM', key, id) end
    elseif delta < 0 then
      for i = max(cost + delta, 0) + 1, cost do call('ZREM', key, i == 1 and id or id .. '#' .. i) end
    elseif delta > 0 then
      for i = cost + 1, cost + delta do call('ZADD', key, now, i == 1 and id or id .. '#' .. i) end
      call('PEXPIRE', key, max(math.ceil(period / 16000), MIN_TTL))
    end
  end
end
return 1
