-- Gives names back, and leaves tombstones. The rule is that of tenure_core::decide::released.
--
-- KEYS: the store, the index of names, a lease for each release. ARGV from `items` on, for each:
-- holder, claim, token, nonce, the transition's JSON, the successor or nothing, how long the name
-- is kept for it. ARGV[4]: the channel.

local FIELDS = 7

local function release(key, a, n)
  local row = row(key)
  if not row then return {'absent'} end
  if not writable(row) then return {'not_held', shown(row)} end
  local ours = row.holder == ARGV[a] and row.claim == ARGV[a + 1] and row.token == ARGV[a + 2]
    and row.state ~= 'released'
  if not ours then return {'not_held', shown(row)} end
  local successor, reserved, not_before = ARGV[a + 5], ARGV[a + 6], 0
  -- Min-hold lives on, unless a successor is named.
  if successor == '' then not_before = math.max(0, math.ceil(row.not_before - row.age / 1000)) end
  local writes = whole(row.writes + 1)
  redis.call('HSET', key, 'nonce', ARGV[a + 3], 'not_before', whole(not_before), 'written',
    whole(now), 'writes', writes, 'state', 'released', 'successor', successor, 'reserved',
    reserved, 'order', '', 'past', history(row.past, ARGV[a + 4]))
  keep(key, math.max(not_before, tonumber(reserved)))
  if entries then entries.give(n, row.holder, successor, reserved) end
  changed = true
  return {'released', writes}
end

for i = 3, items_end do
  answers[i - 2] = release(KEYS[i], items + (i - 3) * FIELDS, i - 2)
end
return swept_and_done()
