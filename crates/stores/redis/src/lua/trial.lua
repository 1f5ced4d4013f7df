-- Tries what an entry shared with a neighbour takes the permission for, and changes nothing.
-- KEYS: such an entry.

local trials = {
  {'GET', KEYS[1]},
  {'PTTL', KEYS[1]},
  {'SET', KEYS[1], '', 'NX', 'XX'},
  {'PEXPIRE', KEYS[1], 'never'},
}
for _, trial in ipairs(trials) do
  local said = redis.pcall(unpack(trial))
  local refused = type(said) == 'table' and said.err
  local meant = refused and (string.find(refused, 'syntax') or string.find(refused, 'integer')
    or string.find(refused, 'WRONGTYPE'))
  if refused and not meant then return redis.error_reply(refused) end
end
return 'OK'
