-- ARGV: clock, moment: about now.
-- Returns three for each owner that has messages to be looked at by then: owner, how many, when the
-- first; and for those held back, with '' as owner: how many beyond the former, when the first of
-- all held back was due.
local LOOKED_THROUGH = 100 -- stale entries in one call
local moment = ARGV[2]
local answer = {}

local function tell(owner, count, first)
  local size = #answer
  answer[size + 1], answer[size + 2], answer[size + 3] = owner, count, first
end

for _, owner in ipairs(redis.call('SMEMBERS', PREFIX .. 'ow')) do
  local key = PREFIX .. 'o:' .. owner
  local due = redis.call('ZCOUNT', key, '-inf', moment)
  if due > 0 then tell(owner, due, tonumber(redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2])) end
end

-- When the first of those held back was due. Drops what a cut AOF has left.
local function first_held()
  for _ = 1, LOOKED_THROUGH do
    local first = redis.call('ZRANGE', PREFIX .. 'hd', 0, 0, 'WITHSCORES')
    if #first == 0 then return nil end
    local r = load(first[1])
    if r and r.not_before > 0 then return tonumber(first[2]) end
    release(first[1])
  end
end

local first = first_held()
if first and first <= tonumber(moment) then
  tell('', redis.call('ZCOUNT', PREFIX .. 'hb', '(' .. moment, '+inf'), first)
end
return answer
