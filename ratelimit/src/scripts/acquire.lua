-- Evaluates every tier of a policy, and writes only if none of them rejects.
-- KEYS        one per group of ARGV[2], and then the record of the request id if there is one; all in one hash slot
-- ARGV[1]     the request id
-- ARGV[2]     the policy and the weights, packed little-endian:
--             u8 mode (0 peek, 1 acquire), u8 whether there is a record, u16 groups, u16 the group whose members are the
--             record of request ids (0 none), f64 expiry of the record in milliseconds;
--             per group: u8 kind (1 packed counters, 2 slots, 3 log), u16 tiers, and for kind 1 the 4 bytes that its
--             string begins with;
--             per tier: u8 algorithm (1 GCRA, 2 fixed window, 3 sliding window, 4 calendar month, 0 others),
--             u8 shadow, f64 cost, f64 limit, f64 period;
--             GCRA: cost and limit (the burst) in ticks of 1/16 us; windows: cost and limit in units, period in ticks;
--             slots: cost 1, limit in slots, period the lease in milliseconds, then f64 the hint in ticks
-- Reply       integers: 0 rejected, 1 admitted, 2 admitted earlier under the same id (nothing is charged again);
--             the time in ticks; then per tier what was in use before (GCRA: ticks, else units), the ticks until it is
--             free again, and the ticks to wait (0 passed, -1 never fits)
-- A packed string is 4 bytes of header, f64 the last time in ticks, and the numbers of its tiers: GCRA the theoretical
-- arrival time; fixed window and month its number and its count; sliding window its number, its count and the one before.
-- When the clock steps back, no time has passed: arrival times move back with it, and windows stay where they are.
local id, spec, call, floor = ARGV[1], ARGV[2], redis.call, math.floor
local unpack_, pack = struct.unpack, struct.pack
local now = ticks()
local mode, has_record, groups, holder, record_ttl, pos = unpack_('<BBHHd', spec)
local out, n, rejected = {1, now}, 2, false
-- What the second pass writes: numbers of the packed strings, and seven facts per group.
local state, s = {}, 0
local todo, t = {}, 0
for g = 1, groups do
  local key, kind, count, header = KEYS[g], nil, nil, nil
  kind, count, pos = unpack_('<BH', spec, pos)
  if kind == 1 then
    header, pos = unpack_('c4', spec, pos)
    local raw, at, shift, longest, from = call('GET', key), 13, 0, 0, s + 1
    if raw then
      if string.sub(raw, 1, 4) ~= header then
        return redis.error_reply('RATELIMIT unknown state in a key: remove it, or use another namespace')
      end
      local last = unpack_('<d', raw, 5)
      if now < last then shift = last - now end
    end
    for _ = 1, count do
      local algorithm, shadow, cost, limit, period
      algorithm, shadow, cost, limit, period, pos = unpack_('<BBddd', spec, pos)
      local wait, used, reset, ttl = 0, 0, 0, 0
      if algorithm == 1 then
        local tat = now
        if raw then
          tat, at = unpack_('<d', raw, at)
          tat = tat - shift
          if tat < now then tat = now end
        end
        used = tat - now
        reset = used
        if cost > limit then wait = -1
        elseif used + cost > limit then wait = used + cost - limit end
        if wait == 0 then tat = tat + cost end
        ttl = tat - now
        s = s + 1
        state[s] = tat
      else
        local index, stop
        if algorithm == 4 then
          index = month_of(now)
        else
          index = floor(now / period)
        end
        local previous = 0
        if raw then
          local i, c, p
          i, c, at = unpack_('<dd', raw, at)
          if algorithm == 3 then p, at = unpack_('<d', raw, at) end
          if i >= index then index, used, previous = i, c, p or 0
          elseif i == index - 1 then previous = c end
        end
        if algorithm == 4 then stop = first_day(index + 1) * DAY else stop = (index + 1) * period end
        reset = stop - now
        local count_now = used
        if algorithm == 3 then
          local early = 0
          local elapsed = now - index * period
          if elapsed < 0 then early, elapsed = -elapsed, 0 end
          used = used + previous * (period - elapsed) / period
          if cost > limit then wait = -1
          elseif used + cost > limit then
            local room = limit - cost - count_now
            if room >= 0 then
              wait = math.ceil(period - elapsed - period * room / previous)
            else
              local later = math.ceil(period - period * (limit - cost) / count_now)
              if later < 0 then later = 0 end
              wait = period - elapsed + later
            end
            wait = wait + early
            if wait < 1 then wait = 1 end
          end
          used = math.ceil(used)
          ttl = reset + period
        else
          if cost > limit then wait = -1
          elseif used + cost > limit then wait = reset end
          ttl = reset
        end
        if wait == 0 then count_now = count_now + cost end
        state[s + 1], state[s + 2] = index, count_now
        s = s + 2
        if algorithm == 3 then
          s = s + 1
          state[s] = previous
        end
      end
      if ttl > longest then longest = ttl end
      if wait ~= 0 and shadow == 0 then rejected = true end
      out[n + 1], out[n + 2], out[n + 3] = used, reset, wait
      n = n + 3
    end
    todo[t + 1], todo[t + 2], todo[t + 3], todo[t + 4], todo[t + 5] = 1, header, from, s, longest
  elseif kind == 2 then
    local _, shadow, cost, limit, lease, hint
    _, shadow, cost, limit, lease, hint, pos = unpack_('<BBdddd', spec, pos)
    local ms = floor(now / 16000)
    local used, wait, crowded = call('ZCARD', key), 0, 0
    if used > 0 and (used >= limit or mode == 0) then
      used, crowded = call('ZCOUNT', key, '(' .. ms, '+inf'), 1
    end
    if used + cost > limit then wait = hint end
    if wait ~= 0 and shadow == 0 then rejected = true end
    out[n + 1], out[n + 2], out[n + 3] = used, 0, wait
    n = n + 3
    todo[t + 1], todo[t + 2], todo[t + 3], todo[t + 4], todo[t + 5] = 2, wait, ms, lease, crowded
  else
    local _, shadow, cost, limit, period
    _, shadow, cost, limit, period, pos = unpack_('<BBddd', spec, pos)
    local since = string.format('(%.0f', now - period)
    local used, reset, wait = call('ZCOUNT', key, since, '+inf'), 0, 0
    if used > 0 then
      local newest = call('ZRANGE', key, -1, -1, 'WITHSCORES')
      reset = newest[2] + period - now
    end
    if cost > limit then wait = -1
    elseif used + cost > limit then
      local nth = call('ZRANGEBYSCORE', key, since, '+inf', 'WITHSCORES', 'LIMIT', used + cost - limit - 1, 1)
      wait = math.max(nth[2] + period - now, 1)
    end
    if wait ~= 0 and shadow == 0 then rejected = true end
    out[n + 1], out[n + 2], out[n + 3] = used, reset, wait
    n = n + 3
    todo[t + 1], todo[t + 2], todo[t + 3], todo[t + 4], todo[t + 5] = 3, wait, cost, period, since
  end
  t = t + 5
end
if rejected then
  out[1] = 0
  if mode == 1 then
    local held = false
    if has_record == 1 then held = call('EXISTS', KEYS[groups + 1]) == 1
    elseif holder > 0 then
      local ends = call('ZSCORE', KEYS[holder], id)
      held = ends and tonumber(ends) > floor(now / 16000)
    end
    if held then out[1] = 2 end
  end
  return out
end
if mode == 0 then return out end
if has_record == 1 then
  if not call('SET', KEYS[groups + 1], 1, 'PX', record_ttl, 'NX') then
    out[1] = 2
    return out
  end
elseif holder > 0 then
  local at = holder * 5 - 5
  local key, ms, lease = KEYS[holder], todo[at + 3], todo[at + 4]
  if todo[at + 5] == 1 then call('ZREMRANGEBYSCORE', key, '-inf', ms) end
  if call('ZADD', key, 'NX', ms + lease, id) == 0 then
    local ends = tonumber(call('ZSCORE', key, id))
    call('ZADD', key, 'XX', ms + lease, id)
    -- A lease that is over, and lies there still, holds nothing.
    if ends > ms then
      out[1] = 2
      return out
    end
  end
  call('PEXPIRE', key, SLOTS_TTL)
end
for g = 1, groups do
  local at, key = g * 5 - 5, KEYS[g]
  local kind, a, b, c, d = todo[at + 1], todo[at + 2], todo[at + 3], todo[at + 4], todo[at + 5]
  if kind == 1 then
    local ttl = math.ceil(d / 16000)
    call('SETRANGE', key, 0, a .. pack('<' .. string.rep('d', c - b + 2), now, unpack(state, b, c)))
    call('PEXPIRE', key, ttl > MIN_TTL and ttl or MIN_TTL)
  elseif kind == 2 then
    if g ~= holder and a == 0 then
      if d == 1 then call('ZREMRANGEBYSCORE', key, '-inf', b) end
      call('ZADD', key, b + c, id)
      call('PEXPIRE', key, SLOTS_TTL)
    end
  elseif a == 0 and b > 0 then
    call('ZREMRANGEBYSCORE', key, '-inf', string.sub(d, 2))
    call('ZADD', key, now, id)
    for i = 2, b do call('ZADD', key, now, id .. '#' .. i) end
    local ttl = math.ceil(c / 16000)
    call('PEXPIRE', key, ttl > MIN_TTL and ttl or MIN_TTL)
  end
end
return out
