-- Reads records. KEYS: the store, the leases.

for i = 2, keys_end do
  local row = row(KEYS[i])
  local free = entries and not (row and (row.broken or taken(row)))
  answers[i - 1] = free and entries.foreign(i - 1, row) or row and shown(row) or {}
end
return done()
