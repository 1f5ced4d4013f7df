-- Gives a bucket the mark of its cluster, unless it bears another.
-- KEYS: the store. ARGV: the mark. Answers with the mark that it bears then.

local found = redis.call('HGET', KEYS[1], 'cluster')
if found then return found end
redis.call('HSET', KEYS[1], 'cluster', ARGV[1])
return ARGV[1]
