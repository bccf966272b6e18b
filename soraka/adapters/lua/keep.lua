-- ARGV: clock, then two for each topic: name, how long what has ended well is kept.
local key, named = PREFIX .. 'rt', {}
for i = 2, #ARGV, 2 do
  named[ARGV[i]] = true
  redis.call('HSET', key, ARGV[i], ARGV[i + 1])
end
for _, topic in ipairs(redis.call('HKEYS', key)) do
  if not named[topic] then redis.call('HDEL', key, topic) end
end
return 0
