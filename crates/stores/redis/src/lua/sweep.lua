-- Between common.lua and what writes names: the index loses names whose leases have ended with
-- their keys. Two are drawn where a new name comes in, and looked at by the next call that writes
-- anything, so that all keys are told beforehand and the index stays within twice what lives.
--
-- KEYS[2]: the index; the last keys of tenure's own: the leases to look at. ARGV[5]: how many; then their names.

local DRAWN = 2
local swept = tonumber(ARGV[5])
-- Where the items' arguments and the keys of the items end.
local items, items_end = 6 + swept, keys_end - swept
local fresh = false

local function sweep()
  for i = 1, swept do
    if redis.call('EXISTS', KEYS[items_end + i]) == 0 then
      redis.call('ZREM', KEYS[2], ARGV[5 + i])
    end
  end
end

local function swept_and_done()
  if changed then sweep() end
  local said = done()
  if fresh then
    local from = now % redis.call('ZCARD', KEYS[2])
    said[5] = redis.call('ZRANGE', KEYS[2], whole(from), whole(from + DRAWN - 1))
  end
  return said
end
