-- ARGV: clock, partition, position. Returns the position the shard stands at now.
local standing = tonumber(redis.call('HGET', PREFIX .. 'hw', ARGV[2]) or -1)
if standing > tonumber(ARGV[3]) then
  redis.call('HSET', PREFIX .. 'hw', ARGV[2], ARGV[3])
  standing = tonumber(ARGV[3])
end
return standing
