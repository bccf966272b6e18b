-- ARGV: clock, then two for each: partition, position.
-- Returns 1 when the shard had no positions and took these, else 0.
if redis.call('EXISTS', PREFIX .. 'hw') == 1 then return 0 end
check_shard()
for i = 2, #ARGV, 2 do
  redis.call('HSET', PREFIX .. 'hw', ARGV[i], ARGV[i + 1])
end
return 1
