-- Prolongs grants that are in force. The rule is that of tenure_core::decide::renewed.
--
-- KEYS: the store, a lease for each hold. ARGV from 5 on, for each hold: holder, claim, token,
-- ttl, rest of the min-hold, nonce, how long it has been unconfirmed in us.

local FIELDS = 7

local function renew(key, a)
  local row = row(key)
  if not row then return {'absent'} end
  if not writable(row) then return {'not_held', shown(row)} end
  local ours = row.holder == ARGV[a] and row.claim == ARGV[a + 1] and row.token == ARGV[a + 2]
    and row.state == 'held'
  -- Where the server's clock and the holder's own both speak, the earlier end counts.
  local age = math.max(row.age, tonumber(ARGV[a + 6]))
  if not ours or age >= row.ttl * 1000 then return {'not_held', shown(row)} end
  local writes = whole(tonumber(row.writes) + 1)
  redis.call('HSET', key, 'nonce', ARGV[a + 5], 'ttl', ARGV[a + 3], 'not_before', ARGV[a + 4],
    'written', whole(now), 'writes', writes)
  keep(key, ARGV[a + 3] + ARGV[a + 4])
  if row.asked ~= '' then return {'asked', writes, row.record} end
  return {'renewed', writes}
end

for i = 2, #KEYS do answers[i - 1] = renew(KEYS[i], 5 + (i - 2) * FIELDS) end
return done()
