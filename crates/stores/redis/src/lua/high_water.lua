-- Lets a token through that is at least as new as all that came before it for one resource.
-- Answers with the newest: if that isn't the token given, whoever gave it is late and must stop.
--
-- KEYS[1]: where the resource's newest token is kept; it must never expire nor be evicted.
-- ARGV[1]: the token, in decimal digits. They are compared as text: Lua's numbers are too small.

local seen = redis.call('GET', KEYS[1])
local token = ARGV[1]
if seen and (#seen > #token or (#seen == #token and seen > token)) then return seen end
if seen ~= token then redis.call('SET', KEYS[1], token) end
return token
