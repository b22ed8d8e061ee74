-- Appends messages to a session's log; append.lua, draft_finish.lua and fork.lua are loaded with this file before them.
-- The function takes two keys of KEYS, the log (a stream) and the meta hash, and where in ARGV its arguments begin:
--   +0  how long both keys live, in milliseconds
--   +1  by how much that may fall short before the expiry is set anew, in milliseconds
--   +2  how old the user's index may be, in milliseconds
--   +3  where the messages go: '' after the newest of the active branch, '=<id>' after that message ('=0-0' at the
--       beginning), '/<id>' in the place of that message
--   +4  from here six arguments per message: form, role, content, tokens, extra (JSON or ''), client id (or '')
-- Reply of the function: flags (1: the user's index is due, 2: the session had been archived), then the messages' ids;
-- the id of a message that was stored before begins with '='. Or one negative integer: -1 there is no session, -2 it was
-- erased, -3 there is no message at the place named, -7 the session is of a later release.
--
-- The time is that of the message's own id. Clients' ids are kept in the fields 'c:<client id>'; when there are many, all but
-- the newest 256 of the last ten minutes are dropped.
local function forget(meta, now)
    local all, ids = redis.call('HGETALL', meta), {}
    for i = 1, #all, 2 do
        if string.sub(all[i], 1, 2) == 'c:' then
            local ms, seq = string.match(all[i + 1], '^(%d+)-(%d+)$')
            ids[#ids + 1] = {all[i], tonumber(ms), tonumber(seq)}
        end
    end
    table.sort(ids, function(a, b)
        if a[2] == b[2] then
            return a[3] > b[3]
        end
        return a[2] > b[2]
    end)
    local kept = 0
    for i, id in ipairs(ids) do
        if i <= 256 and now - id[2] < 600000 then
            kept = i
        else
            redis.call('HDEL', meta, id[1])
        end
    end
    redis.call('HSET', meta, 'ids', kept, 'idcap', math.min(kept + 64, 320))
end

-- Where a message goes that does not follow the newest one: its parent, and the tokens before it.
local function place(log, meta, where)
    local how, id = string.sub(where, 1, 1), string.sub(where, 2)
    if id == '0-0' then
        return id, 0
    end
    local found = redis.call('XRANGE', log, id, id)[1]
    if not found then
        return nil
    end
    local fields = found[2]
    if how == '=' then
        return id, fields[10] + fields[8]
    end
    local parent = fields[14]
    if parent == '' then
        local before = redis.call('XREVRANGE', log, '(' .. id, '-', 'COUNT', 1)[1]
        parent = before and before[1] or redis.call('HGET', meta, 'trimmed') or '0-0'
    end
    return parent, tonumber(fields[10])
end

local function append(log, meta, at)
    local have = redis.call('HMGET', meta, 'v', 'last', 'n', 'tok', 'exp', 'idx', 'leaf', 'archived', 'erased')
    if not have[1] then
        return have[9] and -2 or -1
    end
    if have[1] ~= '1' then
        return -7
    end
    local before, n, tok, leaf = have[2], have[3], tonumber(have[4]), have[7]
    local last, where, parent, moved = before, ARGV[at + 3], '', false
    if leaf and leaf ~= last then
        parent = leaf
    end
    local reply, fresh, remembered = {0}, 0, 0
    for i = at + 4, #ARGV, 6 do
        local client = ARGV[i + 5]
        local known = client ~= '' and redis.call('HGET', meta, 'c:' .. client)
        if known then
            reply[#reply + 1] = '=' .. known
        else
            if where ~= '' and fresh == 0 then
                parent, tok = place(log, meta, where)
                if not parent then
                    return -3
                end
                -- What follows the newest message of an unbranched session is no branch.
                moved = leaf or parent ~= last and (before ~= '' or parent ~= '0-0')
                if parent == last or not moved then
                    parent = ''
                end
            end
            last = redis.call('XADD', log, '*', 'v', ARGV[i], 'role', ARGV[i + 1], 'content', ARGV[i + 2],
                'tokens', ARGV[i + 3], 'at', tok, 'extra', ARGV[i + 4], 'parent', parent)
            reply[#reply + 1] = last
            parent, tok, fresh = '', tok + ARGV[i + 3], fresh + 1
            if client ~= '' then
                redis.call('HSET', meta, 'c:' .. client, last)
                remembered = remembered + 1
            end
        end
    end
    if fresh == 0 then
        return reply
    end
    redis.call('HSET', meta, 'last', last, 'n', n + fresh, 'tok', tok)
    local now = tonumber(string.match(last, '^%d+'))
    if leaf or moved then
        redis.call('HSET', meta, 'leaf', last)
        if moved then
            redis.call('HINCRBY', meta, 'sv', 1)
        end
    end
    if have[5] - now < ARGV[at] - ARGV[at + 1] or before == '' then
        redis.call('PEXPIRE', log, ARGV[at])
        redis.call('PEXPIRE', meta, ARGV[at])
        redis.call('HSET', meta, 'exp', now + ARGV[at])
    end
    if now - have[6] >= tonumber(ARGV[at + 2]) then
        redis.call('HSET', meta, 'idx', now)
        reply[1] = 1
    end
    if have[8] and have[8] == before then
        reply[1] = reply[1] + 2
    end
    if remembered > 0 then
        local ids = redis.call('HINCRBY', meta, 'ids', remembered)
        if ids >= tonumber(redis.call('HGET', meta, 'idcap') or 64) then
            forget(meta, now)
        end
    end
    return reply
end
