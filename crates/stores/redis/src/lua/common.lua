-- What every script begins with: is this the store that the caller believes in, and what time
-- is it here?
--
-- KEYS[1] is the bucket's store hash. ARGV: its id, the highest token that the caller has seen
-- of it, what to add to the server's clock (0 but in tests).

-- Whether the decimal number a is above b. Tokens go beyond what Lua's numbers can tell apart.
local function above(a, b)
  if #a ~= #b then return #a > #b end
  return a > b
end

-- What shared.lua puts here where leases are shared with a neighbour, and where tenure's own keys
-- end.
local entries, keys_end = nil, #KEYS

local store = redis.call('HMGET', KEYS[1], 'id', 'token')
local counted = store[2] or '0'
if store[1] ~= ARGV[1] or above(ARGV[2], counted) then return {'reset'} end

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2] + ARGV[3]

local function whole(number) return string.format('%.0f', number) end

-- The record format that this release writes, and the newest that it reads.
local FORMAT = '1'

-- What is kept of a name. Decisions are made from these fields; the record's JSON is carried
-- along, and `format` says what it is written in. nonce, ttl and not_before stand for the record's own fields of these names: a renewal
-- rewrites them, and leaves the JSON alone. Durations are in ms, `written` is in us.
local function row(key)
  local f = redis.call('HMGET', key, 'record', 'nonce', 'ttl', 'not_before', 'written', 'writes',
    'holder', 'claim', 'token', 'state', 'successor', 'reserved', 'asked')
  if not f[1] then return nil end
  local ttl, not_before = tonumber(f[3] or ''), tonumber(f[4] or '')
  local written, reserved = tonumber(f[5] or ''), tonumber(f[12] or '')
  local found = {record = f[1], nonce = f[2] or '', ttl_text = f[3] or '',
    not_before_text = f[4] or '', writes = f[6] or '', age = 0}
  if not (f[2] and ttl and not_before and written and f[6] and f[7] and f[8] and f[9] and f[10]
      and f[11] and reserved and f[13]) then
    found.broken = true
    return found
  end
  found.ttl, found.not_before, found.reserved = ttl, not_before, reserved
  found.holder, found.claim, found.token, found.state = f[7], f[8], f[9], f[10]
  found.successor, found.asked = f[11], f[13]
  found.age = math.max(0, now - written)
  return found
end

-- A row as the caller reads it.
local function shown(row)
  return {row.record, row.nonce, row.ttl_text, row.not_before_text, whole(row.age), row.writes}
end

-- The position of the quote that ends the string which begins at `at`.
local function closing(text, at)
  local hit = at
  while true do
    hit = string.find(text, '["\\]', hit + 1)
    if not hit or string.sub(text, hit, hit) == '"' then return hit end
    hit = hit + 1
  end
end

-- The position behind the JSON value that begins at `at`.
local function behind(text, at)
  local depth = 0
  while true do
    local from, _, mark = string.find(text, '(["%[%]{},])', at)
    if not from then return nil end
    if mark == '"' then
      from = closing(text, from)
      if not from then return nil end
    elseif mark == '[' or mark == '{' then
      depth = depth + 1
    elseif depth == 0 then
      return from
    elseif mark ~= ',' then
      depth = depth - 1
    end
    at = from + 1
  end
end

-- The members of a JSON object as text, in order and by key; nothing is decoded, so nothing
-- that a newer release wrote is changed by a number or an empty list that Lua can't keep.
local function members(text)
  local list, by_key = {}, {}
  local at = string.match(text, '^%s*{%s*()')
  if not at then return nil end
  if string.sub(text, at, at) == '}' then return list, by_key end
  while true do
    local quote = string.match(text, '^%s*()"', at)
    local closed = quote and closing(text, quote)
    local value = closed and string.match(text, '^%s*:%s*()', closed + 1)
    local to = value and behind(text, value)
    if not to then return nil end
    local key = string.sub(text, quote + 1, closed - 1)
    local member = {key = key, text = string.sub(text, value, to - 1)}
    list[#list + 1], by_key[key] = member, member.text
    local mark = string.sub(text, to, to)
    if mark == '}' then return list, by_key end
    if mark ~= ',' then return nil end
    at = to + 1
  end
end

-- The last elements of a JSON list, each followed by a comma.
local function last(text, count)
  local elements = {}
  local at = string.match(text or '[]', '^%s*%[%s*()')
  if not at then return nil end
  text = text or '[]'
  while string.sub(text, at, at) ~= ']' do
    local to = behind(text, at)
    if not to then return nil end
    elements[#elements + 1] = string.sub(text, at, to - 1)
    at = to
    if string.sub(text, at, at) == ',' then at = at + 1 end
  end
  local kept = ''
  for i = math.max(1, #elements - count + 1), #elements do kept = kept .. elements[i] .. ',' end
  return kept
end

local TRANSITIONS_MAX = 8

-- Whether a record can be written: it is one, and of no newer format.
local function writable(row)
  if row.broken then return false end
  if string.sub(row.record, 1, 12) == '{"format":1,' then return true end
  local _, by_key = members(row.record)
  local format = by_key and tonumber(by_key.format or '')
  return format ~= nil and format <= tonumber(FORMAT)
end

-- How long a key outlives the grant that is in it: a late copy of a claim still finds its own
-- id, and people the history. What the key's end frees is memory, never a name.
local KEPT = 86400000
local FOR_EVER = 10000000000000

local function keep(key, lasts)
  if lasts < FOR_EVER then
    redis.call('PEXPIRE', key, whole(lasts + KEPT))
  else
    redis.call('PERSIST', key)
  end
end

local answers = {}
local changed = false

-- Who waits is told, once a request. A server that forbids it must not break the request off.
local function done()
  if changed then redis.pcall('PUBLISH', ARGV[4], '') end
  return {'done', counted, whole(now), answers}
end
