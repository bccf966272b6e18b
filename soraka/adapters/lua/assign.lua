-- ARGV: clock, then three for each move: message id, source, target.
-- Returns when to look at each, -1 when it was not moved.
-- The owner alone changes: a lease given up here would let two workers call at once.
local function move(id, source, target)
  local r = load(id)
  if not r or r.state ~= PENDING or r.owner ~= source then return -1 end
  unindex(r)
  unfold(r)
  r.owner = target
  save_whole(r)
  index(r)
  redis.call('SADD', PREFIX .. 'ow', target)
  return look_at(r)
end

local answers = {}
for i = 2, #ARGV, 3 do
  answers[#answers + 1] = move(ARGV[i], ARGV[i + 1], ARGV[i + 2])
end
return answers
