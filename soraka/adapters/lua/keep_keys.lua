-- ARGV: clock; of each shard three for each key: its name, '<id> <digest>', how long that is kept.
-- Returns what is kept under each.
return on_each_shard(1, function(own)
  local kept = {}
  for i = 1, #own, 3 do
    local key = PREFIX .. 'k:' .. own[i]
    local found = redis.call('GET', key)
    if not found then redis.call('SET', key, own[i + 1], 'PX', whole(own[i + 2])) end
    kept[#kept + 1] = found or own[i + 1]
  end
  return kept
end)
