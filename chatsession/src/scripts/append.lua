-- Appends messages: all of them or none, in this order, those whose client ids are known excepted.
-- KEYS[1]    the session's log
-- KEYS[2]    the session's meta hash
-- ARGV[1..]  as append_core.lua says
-- Reply      as append_core.lua says
return append(KEYS[1], KEYS[2], 1)
