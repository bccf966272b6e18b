-- ARGV: clock, moment.
-- Returns three for each owner that has messages due by then: owner, how many, when the first.
local answer = {}
for _, owner in ipairs(redis.call('SMEMBERS', PREFIX .. 'ow')) do
  local key = PREFIX .. 'o:' .. owner
  local due = redis.call('ZCOUNT', key, '-inf', ARGV[2])
  if due > 0 then
    local size = #answer
    answer[size + 1], answer[size + 2] = owner, due
    answer[size + 3] = tonumber(redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2])
  end
end
return answer
