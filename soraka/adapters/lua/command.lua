-- ARGV: clock, early window, retention, then six for each command:
--   message id, when that id was made (-1: no UUIDv7), command id, kind, add_ms, topic
-- Returns a verdict for each.
local early_ms, retention = tonumber(ARGV[2]), ARGV[3]
local AHEAD_MS = 60000 -- how far a submitter's clock may be ahead of ours
local now = clock()

-- Full, the door has room for one cancel still: it makes the rest needless.
local function has_room(waiting, kind)
  if #waiting < REMEMBERED then return true end
  if kind ~= 'cancel' then return false end
  for _, packed in ipairs(waiting) do
    if cmsgpack.unpack(packed)[2] == 'cancel' then return false end
  end
  return true
end

local function leave_at_door(id, made, command)
  if made < 0 or made < now - early_ms or made > now + AHEAD_MS then return 'not_found' end
  local key = PREFIX .. 'e:' .. id
  local waiting = redis.call('LRANGE', key, 0, -1)
  for _, packed in ipairs(waiting) do
    if cmsgpack.unpack(packed)[1] == command[1] then return 'early' end
  end
  if not has_room(waiting, command[2]) then return 'not_found' end
  redis.call('RPUSH', key, cmsgpack.pack(command))
  redis.call('PEXPIRE', key, early_ms)
  return 'early'
end

local verdicts = {}
for i = 4, #ARGV, 6 do
  local command = {ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5]}
  local r = load(ARGV[i])
  if r then
    unfold(r)
    verdicts[#verdicts + 1] = apply(r, command, now, retention)
  else
    verdicts[#verdicts + 1] = leave_at_door(ARGV[i], tonumber(ARGV[i + 1]), command)
  end
end
write_counts()
return verdicts
