-- ARGV: clock, then three for each key: its name, '<id> <digest>', how long that is kept.
-- Returns what is kept under each.
local kept = {}
for i = 2, #ARGV, 3 do
  local key = PREFIX .. 'k:' .. ARGV[i]
  local found = redis.call('GET', key)
  if not found then redis.call('SET', key, ARGV[i + 1], 'PX', ARGV[i + 2]) end
  kept[#kept + 1] = found or ARGV[i + 1]
end
return kept
