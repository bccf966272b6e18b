-- ARGV: clock, lowest id as in ZRANGE BYLEX, highest, how many, states as digits, then topics.
-- Returns three for each entry, the latest first: message id, topic, state.
local low, high, wanted = ARGV[2], ARGV[3], tonumber(ARGV[4])
local AT_ONCE = 16

-- In the order of bytes, as BYLEX has it: `<` would go by the locale of the server.
local function is_before(one, other)
  local i, size = 1, math.min(#one, #other)
  while i <= size and string.byte(one, i) == string.byte(other, i) do i = i + 1 end
  if i > size then return #one < #other end
  return string.byte(one, i) < string.byte(other, i)
end

-- Goes to the next id of a list; false at its end. The first is read alone: most lists have no
-- part in the answer.
local function step(list)
  list.at = list.at + 1
  if list.at > #list.ids then
    if #list.ids < list.asked then return false end
    list.ids = redis.call('ZRANGE', list.key, list.below, low, 'BYLEX', 'REV', 'LIMIT', 0, AT_ONCE)
    list.at, list.asked = 1, AT_ONCE
    if #list.ids == 0 then return false end
    list.below = '(' .. list.ids[#list.ids]
  end
  list.id = list.ids[list.at]
  return true
end

local function first(topic, state)
  local key = listed(topic, state)
  local ids = redis.call('ZRANGE', key, high, low, 'BYLEX', 'REV', 'LIMIT', 0, 1)
  if #ids == 0 then return nil end
  return {key = key, topic = topic, state = state, ids = ids, at = 1, asked = 1, id = ids[1],
    below = '(' .. ids[1]}
end

local lists = {}
for i = 6, #ARGV do
  for state in string.gmatch(ARGV[5], '%d') do lists[#lists + 1] = first(ARGV[i], state) end
end
-- The latest at the end.
table.sort(lists, function(one, other) return is_before(one.id, other.id) end)

local answer = {}
while #lists > 0 and #answer < 3 * wanted do
  local list = table.remove(lists)
  local size = #answer
  answer[size + 1], answer[size + 2], answer[size + 3] = list.id, list.topic, list.state
  if step(list) then
    local i = #lists + 1
    while i > 1 and is_before(list.id, lists[i - 1].id) do
      lists[i] = lists[i - 1]
      i = i - 1
    end
    lists[i] = list
  end
end
return answer
