-- Tells which store a bucket belongs to, and gives it an id where it has none.
--
-- An id is written once and never again: whoever finds another knows that the bucket has
-- forgotten. KEYS: the store, the index of names, a lease that can't be. ARGV: a fresh id, the
-- cluster's mark or nothing, the id that the caller believed in or nothing, the highest token
-- that it has seen.

local function above(a, b)
  if #a ~= #b then return #a > #b end
  return a > b
end

-- What an acquisition will need the permission for, so that a lack of it is told now. None of
-- these finds anything to change.
redis.call('ZREM', KEYS[2], '')
redis.call('ZCARD', KEYS[2])
redis.call('ZRANGE', KEYS[2], 0, 0)
redis.call('EXISTS', KEYS[3])
redis.call('PEXPIRE', KEYS[3], 1)
redis.call('PERSIST', KEYS[3])
redis.call('TIME')

local found = redis.call('HMGET', KEYS[1], 'format', 'id', 'cluster', 'token')
if found[1] and tonumber(found[1]) ~= 1 then
  return {found[1], found[2] or '', found[3] or '', found[4] or '0'}
end
local token = found[4] or '0'
local behind = above(ARGV[4], token)
-- The same store, and yet its tokens went back: another id lets everybody know.
local forgot = behind and found[2] == ARGV[3]
if behind then token = ARGV[4] end
if not found[2] or forgot then
  redis.call('HSET', KEYS[1], 'format', 1, 'id', ARGV[1], 'token', token)
  if not found[3] and ARGV[2] ~= '' then redis.call('HSET', KEYS[1], 'cluster', ARGV[2]) end
  found = redis.call('HMGET', KEYS[1], 'format', 'id', 'cluster', 'token')
elseif behind then
  redis.call('HSET', KEYS[1], 'token', token)
end
return {found[1], found[2], found[3] or '', token}
