-- Grants names that are free. The rules are those of tenure_core::decide::claim and granted.
--
-- KEYS: the store, the index of names, a lease for each claim. ARGV from `items` on, for each:
-- name, id, holder, holder of any incarnation, ttl, min-hold, nonce, token to be above, the
-- grant's JSON, its transition's JSON without its end. ARGV[4]: the channel.

local FIELDS = 10
local TOKEN_MAX = '9223372036854775807'

local function acquire(key, a, n)
  local name, id, holder, anyone = ARGV[a], ARGV[a + 1], ARGV[a + 2], ARGV[a + 3]
  local ttl, min_hold, nonce, floor = ARGV[a + 4], ARGV[a + 5], ARGV[a + 6], ARGV[a + 7]
  local row = row(key)
  local past, why, writes = '', 'first grant', '1'
  if row then
    if not writable(row) then return {'refused', shown(row)} end
    if row.claim == id then
      local ours = row.holder == holder and row.state == 'held'
      if ours and row.age < row.ttl * 1000 and (not entries or entries.is_of(n, holder)) then
        return {'granted', row.token, whole(row.writes), row.fields[3]}
      end
      return {'refused', entries and entries.foreign(n, row) or shown(row)}
    end
    if taken(row, holder, anyone) then return {'refused', shown(row)} end
    past = row.past
    why = row.state == 'released' and 'it was free' or 'the grant before had ended'
    writes = whole(row.writes + 1)
    if above(row.token, floor) then floor = row.token end
  end
  local foreign = entries and entries.foreign(n, row, holder, anyone)
  if foreign then return {'refused', foreign} end
  if above(counted, floor) then floor = counted end
  if not above(TOKEN_MAX, floor) then return {'spent'} end
  if above(floor, counted) then redis.call('HSET', KEYS[1], 'token', floor) end
  redis.call('HINCRBY', KEYS[1], 'token', 1)
  -- Not what HINCRBY says: that has gone through one of Lua's numbers.
  counted = redis.call('HGET', KEYS[1], 'token')
  past = history(past, ARGV[a + 9] .. ',"token":' .. counted .. ',"why":"' .. why .. '"}')
  redis.call('HSET', key, 'format', FORMAT, 'grant', ARGV[a + 8], 'nonce', nonce, 'ttl', ttl,
    'not_before', min_hold, 'written', whole(now), 'writes', writes, 'holder', holder,
    'claim', id, 'token', counted, 'state', 'held', 'successor', '', 'reserved', '0',
    'order', '', 'past', past)
  keep(key, ttl + min_hold)
  if entries then entries.take(n, holder, ttl) end
  redis.call('ZADD', KEYS[2], 0, name)
  changed, fresh = true, fresh or not row
  return {'granted', counted, writes, nonce}
end

for i = 3, items_end do
  answers[i - 2] = acquire(KEYS[i], items + (i - 3) * FIELDS, i - 2)
end
return swept_and_done()
