-- ARGV: clock, lowest topic as in ZRANGE BYLEX, how many topics.
-- Returns five for each: topic, how many in each state.
local answer = {}
for _, topic in ipairs(redis.call('ZRANGE', PREFIX .. 'tp', ARGV[2], '+', 'BYLEX', 'LIMIT', 0,
    ARGV[3])) do
  answer[#answer + 1] = topic
  for state = PENDING, DEAD do
    answer[#answer + 1] = redis.call('ZCARD', listed(topic, state))
  end
end
return answer
