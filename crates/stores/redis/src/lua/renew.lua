-- Prolongs grants that are in force. The rule is that of tenure_core::decide::renewed.
--
-- KEYS: the store, a lease for each hold. ARGV from 5 on, for each hold: holder, claim, token,
-- ttl, rest of the min-hold, nonce, how long it has been unconfirmed in us.

local FIELDS = 7

local function refused(key, n)
  local row = row(key)
  local foreign = entries and entries.foreign(n, row)
  if foreign then return {'not_held', foreign} end
  if not row then return {'absent'} end
  return {'not_held', shown(row)}
end

-- Of a grant in force only this is read: the bulk of it stays where it is.
local function renew(key, a, n)
  local f = redis.call('HMGET', key, 'holder', 'claim', 'token', 'state', 'ttl', 'written',
    'writes', 'order', 'format')
  local ttl, written, writes = tonumber(f[5] or ''), tonumber(f[6] or ''), tonumber(f[7] or '')
  local ours = f[1] == ARGV[a] and f[2] == ARGV[a + 1] and f[3] == ARGV[a + 2] and f[4] == 'held'
  if not (ours and ttl and written and writes and f[8] and f[9] == FORMAT) then
    return refused(key, n)
  end
  -- Where the server's clock and the holder's own both speak, the earlier end counts.
  local age = math.max(now - written, tonumber(ARGV[a + 6]))
  if age >= ttl * 1000 then return refused(key, n) end
  -- What the neighbour took or deleted is lost, and no renewal brings it back.
  if entries and not entries.prolong(n, ARGV[a], ARGV[a + 3]) then return refused(key, n) end
  writes = whole(writes + 1)
  redis.call('HSET', key, 'nonce', ARGV[a + 5], 'ttl', ARGV[a + 3], 'not_before', ARGV[a + 4],
    'written', whole(now), 'writes', writes)
  keep(key, ARGV[a + 3] + ARGV[a + 4])
  if f[8] ~= '' then return {'asked', writes, f[8]} end
  return {'renewed', writes}
end

for i = 2, keys_end do answers[i - 1] = renew(KEYS[i], 5 + (i - 2) * FIELDS, i - 1) end
return done()
