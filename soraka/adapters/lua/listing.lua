-- Entries of `i`; sent in front of the scripts that look after them.

-- Puts the entry of a message where it belongs; a message that is gone has none.
local function correct(topic, state, id)
  local r = load(id)
  if r and r.topic == topic and r.state == state then return end
  if r then redis.call('ZADD', listed(r.topic, r.state), 0, id) end
  redis.call('ZREM', listed(topic, state), id)
end
