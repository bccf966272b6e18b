-- ARGV: clock, how long to keep, then three for each value: '<series>:<hour>', '<minute>:<name>',
-- what is added.
local keys = {}
for i = 3, #ARGV, 3 do
  local key = PREFIX .. 'y:' .. ARGV[i]
  redis.call('HINCRBY', key, ARGV[i + 1], ARGV[i + 2])
  keys[key] = true
end
for key in pairs(keys) do redis.call('PEXPIRE', key, ARGV[2]) end
return 0
