-- After common.lua, where leases are shared with a neighbour: another system, that knows nothing of
-- tenure. Beside a lease there is an entry then, a string of the neighbour's: its value is its
-- holder's id, it ends by itself, and whoever finds none may set it. It moves with the lease.
--
-- The last KEYS: the entry of each item, in their order. The last ARGV: how many.

keys_end = #KEYS - ARGV[#ARGV]
entries = {}

-- By what id the neighbour knows an instance; NAME/* is any of that name.
local function known_as(instance)
  local incarnation, name = string.match(instance, '^(%S+) (.*)$')
  return name .. '/' .. incarnation
end

local function found(n)
  local value = redis.pcall('GET', KEYS[keys_end + n])
  -- What is no string keeps the name, whosever it is, and is never overwritten.
  if type(value) == 'table' then return '(' .. value.err .. ')' end
  return value
end

-- A time in ms as PX takes it.
local function lasting(time) return whole(math.max(1, math.min(time, FOR_EVER))) end

function entries.is_of(n, holder) return found(n) == known_as(holder) end

-- What a neighbour keeps, as the caller reads it: its id, how long, until when, and the lease's
-- own row. Nil: nothing, or what this claimant may take, or what an ended grant left.
function entries.foreign(n, row, holder, anyone)
  local value = found(n)
  if not value then return nil end
  if holder and (value == known_as(holder) or value == known_as(anyone)) then return nil end
  if row and not row.broken then
    if value == known_as(row.holder) then return nil end
    if row.successor ~= '' and value == known_as(row.successor) then return nil end
  end
  local left = redis.call('PTTL', KEYS[keys_end + n])
  return {value, whole(left), whole(now / 1000 + left), row and shown(row) or {}}
end

function entries.take(n, holder, ttl)
  redis.call('SET', KEYS[keys_end + n], known_as(holder), 'PX', lasting(ttl))
end

-- Whether it still was this holder's, and so goes on.
function entries.prolong(n, holder, ttl)
  return entries.is_of(n, holder) and redis.call('PEXPIRE', KEYS[keys_end + n], lasting(ttl)) == 1
end

-- Frees it, or keeps it for a successor; if it is this holder's.
function entries.give(n, holder, successor, reserved)
  if not entries.is_of(n, holder) then return end
  if successor ~= '' and tonumber(reserved) > 0 then
    redis.call('SET', KEYS[keys_end + n], known_as(successor), 'PX', lasting(reserved))
  else
    redis.call('PEXPIRE', KEYS[keys_end + n], 0)
  end
end
