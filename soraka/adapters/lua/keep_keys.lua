-- ARGV: clock; of each shard three for each key: its name, '<id> <digest>', how long that is kept.
-- Returns what is kept under each.
return on_each_shard(1, function(from, to)
  local kept = {}
  for i = from, to, 3 do
    local key = PREFIX .. 'k:' .. ARGV[i]
    local found = redis.call('GET', key)
    if not found then redis.call('SET', key, ARGV[i + 1], 'PX', ARGV[i + 2]) end
    kept[#kept + 1] = found or ARGV[i + 1]
  end
  return kept
end)
