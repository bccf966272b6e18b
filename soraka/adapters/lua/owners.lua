-- Returns two for each owner with pending messages: owner, how many. Forgets the others.
local answer = {}
for _, owner in ipairs(redis.call('SMEMBERS', PREFIX .. 'ow')) do
  local pending = redis.call('ZCARD', PREFIX .. 'o:' .. owner)
  if pending > 0 then
    answer[#answer + 1], answer[#answer + 2] = owner, pending
  else
    redis.call('SREM', PREFIX .. 'ow', owner)
  end
end
return answer
