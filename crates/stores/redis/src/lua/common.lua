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

-- What is kept of a name, in parts, so that no script takes JSON apart: `grant` says who was
-- granted what, and stays until the next grant; `past` is what happened, a line of JSON each;
-- `extra` belongs to newer releases, and is left alone like any field that isn't listed here.
-- Durations are in ms, `written` is in us.
local FIELDS_KEPT = {'format', 'grant', 'nonce', 'ttl', 'not_before', 'written', 'writes', 'holder',
  'claim', 'token', 'state', 'successor', 'reserved', 'order', 'past', 'extra'}

local function row(key)
  local f = redis.call('HMGET', key, unpack(FIELDS_KEPT))
  if not f[1] and not f[2] then return nil end
  local found = {fields = f, broken = false, age = 0}
  for i = 1, 15 do found.broken = found.broken or not f[i] end
  found.ttl, found.not_before = tonumber(f[4] or ''), tonumber(f[5] or '')
  local written, writes = tonumber(f[6] or ''), tonumber(f[7] or '')
  found.reserved = tonumber(f[13] or '')
  if found.broken or not (found.ttl and found.not_before and written and writes and found.reserved)
  then
    found.broken = true
    return found
  end
  found.format, found.writes, found.holder, found.claim = f[1], writes, f[8], f[9]
  found.token, found.state, found.successor, found.past = f[10], f[11], f[12], f[15]
  found.age = math.max(0, now - written)
  return found
end

-- A row as the caller reads it: its fields, and its age behind them.
local function shown(row)
  row.fields[#FIELDS_KEPT + 1] = whole(row.age)
  return row.fields
end

-- Whether a record can be written: it is one, and of no newer format.
local function writable(row)
  local format = not row.broken and tonumber(row.format)
  return format and format <= tonumber(FORMAT)
end

local TRANSITIONS_MAX = 8

-- What happened, with one line more, and the oldest left out that are too many.
local function history(past, line)
  local _, count = string.gsub(past, '\n', '')
  for _ = TRANSITIONS_MAX, count do past = string.sub(past, string.find(past, '\n', 1, true) + 1) end
  return past .. line .. '\n'
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
