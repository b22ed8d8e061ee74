#!lua
-- Adds to the outcomes of a revision of an experiment.
-- KEYS[1]     the hash of counts
-- ARGV[1]     time to live from now on, in milliseconds
-- ARGV[2..]   names of counts and what to add, alternating
-- Reply       OK
redis.call('HSETNX', KEYS[1], 'since', redis.call('TIME')[1])
for place = 2, #ARGV, 2 do
    if ARGV[place + 1] ~= '0' then
        redis.call('HINCRBY', KEYS[1], ARGV[place], ARGV[place + 1])
    end
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return redis.status_reply('OK')
