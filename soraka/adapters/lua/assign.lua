-- ARGV: clock; of each shard three for each move: message id, source, target.
-- Returns when to look at each, -1 when it was not moved.
-- The owner alone changes: a lease given up here would let two workers call at once. But what is
-- parked is not held back as well.
local function move(id, source, target)
  local r = load(id)
  if not r or r.state ~= PENDING or r.owner ~= source then
    redis.call('ZREM', PREFIX .. 'o:' .. source, id) -- what a cut AOF may have left
    return -1
  end
  if source == target then return look_at(r) end
  unfold(r)
  r.owner = target
  if string.sub(target, 1, 1) == PARKED then r.not_before = 0 end
  redis.call('SADD', PREFIX .. 'ow', target)
  index(r)
  save_whole(r)
  redis.call('ZREM', PREFIX .. 'o:' .. source, id)
  return look_at(r)
end

return on_each_shard(1, function(own)
  local answers = {}
  for i = 1, #own, 3 do
    answers[#answers + 1] = move(own[i], own[i + 1], own[i + 2])
  end
  return answers
end)
