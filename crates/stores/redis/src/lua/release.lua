-- Gives names back, and leaves tombstones. The rule is that of tenure_core::decide::released.
--
-- KEYS: the store, the index of names, a lease for each release. ARGV from `items` on, for each: holder, claim, token,
-- nonce, the state's JSON, the transition's JSON, the successor or nothing, how long the name is
-- kept for it. ARGV[4]: the channel.

local FIELDS = 8

-- The record's JSON with another state and one transition more, and nothing asked any more.
local function buried(record, state, transition)
  local list, by_key = members(record)
  local past = list and last(by_key.transitions, TRANSITIONS_MAX - 1)
  if not past then return nil end
  local kept = {}
  for _, member in ipairs(list) do
    if member.key ~= 'state' and member.key ~= 'transitions' and member.key ~= 'order' then
      kept[#kept + 1] = '"' .. member.key .. '":' .. member.text
    end
  end
  kept[#kept + 1] = '"state":' .. state
  kept[#kept + 1] = '"transitions":[' .. past .. transition .. ']'
  return '{' .. table.concat(kept, ',') .. '}'
end

local function release(key, a, n)
  local row = row(key)
  if not row then return {'absent'} end
  if not writable(row) then return {'not_held', shown(row)} end
  local ours = row.holder == ARGV[a] and row.claim == ARGV[a + 1] and row.token == ARGV[a + 2]
    and row.state ~= 'released'
  local record = ours and buried(row.record, ARGV[a + 4], ARGV[a + 5])
  if not record then return {'not_held', shown(row)} end
  local successor, reserved, not_before = ARGV[a + 6], ARGV[a + 7], 0
  -- Min-hold lives on, unless a successor is named.
  if successor == '' then not_before = math.max(0, math.ceil(row.not_before - row.age / 1000)) end
  local writes = whole(tonumber(row.writes) + 1)
  redis.call('HSET', key, 'record', record, 'nonce', ARGV[a + 3], 'not_before', whole(not_before),
    'written', whole(now), 'writes', writes, 'state', 'released', 'successor', successor,
    'reserved', reserved, 'asked', '')
  keep(key, math.max(not_before, tonumber(reserved)))
  if entries then entries.give(n, row.holder, successor, reserved) end
  changed = true
  return {'released', writes}
end

for i = 3, items_end do
  answers[i - 2] = release(KEYS[i], items + (i - 3) * FIELDS, i - 2)
end
return swept_and_done()
