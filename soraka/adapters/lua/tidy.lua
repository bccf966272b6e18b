-- ARGV: clock, how many entries of `i` to look at.
-- Goes on where the last call ended, and from the start when that was the end. Returns how many.
local AT_ONCE = 100
local left = tonumber(ARGV[2])

local function is_stale(state, id)
  return redis.call('GETRANGE', PREFIX .. 'm:' .. id, 0, 0) ~= string.char(state)
end

-- Returns the last id looked at, or nil when the list has ended.
local function look_through(topic, state, below)
  while left > 0 do
    local ids = redis.call('ZRANGE', listed(topic, state), below, '+', 'BYLEX', 'LIMIT', 0,
      math.min(left, AT_ONCE))
    if #ids == 0 then return nil end
    for _, id in ipairs(ids) do
      if is_stale(state, id) then correct(topic, state, id) end
    end
    left = left - #ids
    below = '(' .. ids[#ids]
  end
  return below
end

local function next_topic(from)
  return redis.call('ZRANGE', PREFIX .. 'tp', from, '+', 'BYLEX', 'LIMIT', 0, 1)[1]
end

local function forget_if_empty(topic)
  local held = 0
  for state = PENDING, DEAD do held = held + redis.call('ZCARD', listed(topic, state)) end
  if held == 0 then redis.call('ZREM', PREFIX .. 'tp', topic) end
end

local mark = redis.call('HMGET', PREFIX .. 'td', 'topic', 'state', 'below')
local from, state, below = mark[1] or '-', tonumber(mark[2] or PENDING), mark[3] or '-'
local ended = false

while left > 0 and not ended do
  local topic = next_topic(from)
  if not topic then
    ended = true
  else
    if from ~= '[' .. topic then from, state, below = '[' .. topic, PENDING, '-' end
    below = look_through(topic, state, below)
    if not below then
      left = left - 1 -- an empty list costs something, too
      state, below = state + 1, '-'
    end
    if state > DEAD then
      forget_if_empty(topic)
      from = '(' .. topic
    end
  end
end
if ended then
  redis.call('DEL', PREFIX .. 'td')
else
  redis.call('HSET', PREFIX .. 'td', 'topic', from, 'state', state, 'below', below)
end
return tonumber(ARGV[2]) - left
