-- ARGV: clock, margin, then message ids.
-- Returns the era, then two for each: 0 '' gone, 1 due, 2 end of the other's lease, 3 the record as claimed,
-- without its history.
-- Fails, and does nothing, while nobody has vouched for this server: it may have lost a cancel.
local present = era()
if not is_vouched_for(present) then
  return redis.error_reply('UNVOUCHED it has restarted and is not vouched for yet')
end

local GONE, LATER, BUSY, FIRE = 0, 1, 2, 3
local margin = tonumber(ARGV[2])
local now = clock()

local function claim(r)
  if not r then return GONE, '' end
  if r.state ~= PENDING then
    unindex(r) -- what a cut AOF may have left
    return GONE, ''
  end
  if r.lease > now then return BUSY, r.lease end
  local at = math.max(r.due, r.not_before)
  if at > now then return LATER, at end
  r.not_before, r.lease = 0, now + r.ttr + margin
  r.attempt, r.tries = r.attempt + 1, r.tries + 1
  save_head(r)
  index(r)
  count('attempts', 1)
  return FIRE, head(r) .. string.sub(r.raw, HEAD_SIZE + 1, body_end(r))
end

-- All are read before one is claimed: where one cannot be, the others keep their attempts.
local records = {}
for i = 3, #ARGV do
  records[ARGV[i]] = records[ARGV[i]] or load(ARGV[i])
end

local replies = {present}
for i = 3, #ARGV do
  local kind, rest = claim(records[ARGV[i]])
  replies[#replies + 1], replies[#replies + 2] = kind, rest
end
write_counts()
return replies
