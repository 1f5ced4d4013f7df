-- Whether what stands there keeps this claimant out.
local function taken(row, holder, anyone)
  local lasts = 0
  if row.state == 'held' or row.state == 'revoked' then
    lasts = row.ttl
  elseif row.successor ~= '' and row.successor ~= holder and row.successor ~= anyone then
    lasts = row.reserved
  end
  lasts = math.max(lasts, row.not_before)
  return row.age < lasts * 1000
end
