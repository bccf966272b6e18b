-- ARGV: clock, how many entries of `i` to look at.
-- Goes on where the last call ended, and from the start when that was the end. Returns how many.
--
-- A list is in the order of submit, so what has expired stands mostly at its old end: most calls
-- leave a list after ENOUGH entries in a row that were not stale. One in FULL_EVERY goes on with a
-- walk through all entries; the two have marks of their own.
local AT_ONCE, ENOUGH, FULL_EVERY = 100, 250, 10
local MARK = PREFIX .. 'td'
local left = tonumber(ARGV[2])

local is_full = redis.call('HINCRBY', MARK, 'calls', 1) % FULL_EVERY == 0
local live = 0

local function is_stale(state, id)
  return state_in(redis.call('GETRANGE', PREFIX .. 'm:' .. id, 0, 1)) ~= state
end

-- Returns the last id looked at, or nil when the list has ended, or is left.
local function look_through(topic, state, below)
  while left > 0 do
    local ids = redis.call('ZRANGE', listed(topic, state), below, '+', 'BYLEX', 'LIMIT', 0,
      math.min(left, AT_ONCE))
    if #ids == 0 then return nil end
    for _, id in ipairs(ids) do
      live = live + 1
      if is_stale(state, id) then
        correct(topic, state, id)
        live = 0
      end
    end
    left = left - #ids
    if live >= ENOUGH and not is_full then return nil end
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

local fields = {'topic', 'state', 'below', 'live'}
for i, name in ipairs(fields) do fields[i] = (is_full and 'full ' or 'first ') .. name end
local mark = redis.call('HMGET', MARK, unpack(fields))
local from, state, below = mark[1] or '-', tonumber(mark[2] or PENDING), mark[3] or '-'
live = tonumber(mark[4] or 0)
local ended = false

while left > 0 and not ended do
  local topic = next_topic(from)
  if not topic then
    ended = true
  else
    if from ~= '[' .. topic then from, state, below, live = '[' .. topic, PENDING, '-', 0 end
    below = look_through(topic, state, below)
    if not below then
      left = left - 1 -- an empty list costs something, too
      state, below, live = state + 1, '-', 0
    end
    if state > DEAD then
      forget_if_empty(topic)
      from = '(' .. topic
    end
  end
end
if ended then
  redis.call('HDEL', MARK, unpack(fields))
else
  redis.call('HSET', MARK, fields[1], from, fields[2], state, fields[3], below, fields[4], live)
end
return tonumber(ARGV[2]) - left
