-- Writes a record that an order has marked, if it is still the one that was read. The holder's
-- last write stays what it was: an order prolongs nothing.
--
-- KEYS: the store, the lease. ARGV from 4 on: the channel, the count of writes and the nonce that
-- were read; then the record's JSON, nonce, not_before, state, and whether anything is asked.

local row = row(KEYS[2])
if row and not row.broken and row.writes == ARGV[5] and row.nonce == ARGV[6] then
  local writes = whole(tonumber(row.writes) + 1)
  redis.call('HSET', KEYS[2], 'record', ARGV[7], 'nonce', ARGV[8], 'not_before', ARGV[9],
    'writes', writes, 'state', ARGV[10], 'successor', '', 'reserved', '0', 'asked', ARGV[11])
  keep(KEYS[2], row.ttl + ARGV[9])
  if entries and ARGV[10] == 'released' then entries.give(1, row.holder, '', '0') end
  changed = true
  answers[1] = writes
end
return done()
