-- ARGV: clock, margin, how far ahead; of each shard message ids.
-- Returns for each shard the era, now, then two for each id: 0 '' gone, 1 due, 2 end of the other's
-- lease, 3 the record as claimed, without its history. What falls due within `ahead` is claimed
-- before its time, and its lease runs from then on.
-- Does nothing in a shard while nobody has vouched for this server, which may have lost a cancel:
-- the reply of that is null, and when all are the script fails.
local GONE, LATER, BUSY, FIRE = 0, 1, 2, 3
local margin, ahead = tonumber(ARGV[2]), tonumber(ARGV[3])
local now = clock()
local present = era()

local function claim(r)
  if not r then return GONE, '' end
  if r.state ~= PENDING then
    unindex(r) -- what a cut AOF may have left
    return GONE, ''
  end
  if r.lease > now then return BUSY, r.lease end
  local at = math.max(r.due, r.not_before)
  if at > now + ahead then return LATER, at end
  r.not_before, r.lease = 0, math.max(at, now) + r.ttr + margin
  r.attempt, r.tries = r.attempt + 1, math.min(r.tries + 1, MOST)
  local changed = save_head(r)
  index(r)
  count('attempts', 1)
  return FIRE, changed .. string.sub(r.raw, #changed + 1, body_end(r))
end

-- All are read before one is claimed: where one cannot be, the others keep their attempts.
local records = {}
on_each_shard(3, function(ids)
  for _, id in ipairs(ids) do records[id] = load(id) end
end)

local vouched_for = false
local replies = on_each_shard(3, function(ids)
  if not is_vouched_for(present) then return false end
  vouched_for = true
  local answers = {present, now}
  for _, id in ipairs(ids) do
    local kind, rest = claim(records[id])
    answers[#answers + 1], answers[#answers + 2] = kind, rest
  end
  return answers
end)
if not vouched_for then
  return redis.error_reply('UNVOUCHED it has restarted and is not vouched for yet')
end
return replies
