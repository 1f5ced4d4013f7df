-- Writes a record that an order has marked, if it is still the one that was read. The holder's
-- last write stays what it was: an order prolongs nothing.
--
-- KEYS: the store, the lease. ARGV from 4 on: the channel, the count of writes and the nonce that
-- were read; then nonce, not_before, state, the order's JSON, and all that happened.

local row = row(KEYS[2])
if row and not row.broken and row.fields[7] == ARGV[5] and row.fields[3] == ARGV[6] then
  local writes = whole(row.writes + 1)
  redis.call('HSET', KEYS[2], 'nonce', ARGV[7], 'not_before', ARGV[8], 'writes', writes,
    'state', ARGV[9], 'successor', '', 'reserved', '0', 'order', ARGV[10], 'past', ARGV[11])
  keep(KEYS[2], row.ttl + ARGV[8])
  if entries and ARGV[9] == 'released' then entries.give(1, row.holder, '', '0') end
  changed = true
  answers[1] = writes
end
return done()
