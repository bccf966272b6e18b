-- ARGV: clock, retention, oldest and farthest ahead an unknown id may be, how long a command
-- waits at a door, how many may wait at all doors; of each shard six for each command:
--   message id, when that id was made (-1: no UUIDv7), command id, kind, add_ms, topic
-- Returns a verdict for each, or 'full'.
local retention, early_ms, ahead_ms = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local door_ms, max_waiting = tonumber(ARGV[5]), tonumber(ARGV[6])
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

local function doors_are_full()
  redis.call('ZREMRANGEBYSCORE', PREFIX .. 'ed', '-inf', now)
  return redis.call('ZCARD', PREFIX .. 'ed') >= max_waiting
end

local function leave_at_door(id, made, command)
  if command[2] == 'redrive' then return 'not_found' end
  if made < 0 or made < now - early_ms or made > now + ahead_ms then return 'not_found' end
  local key = PREFIX .. 'e:' .. id
  local waiting = redis.call('LRANGE', key, 0, -1)
  for _, packed in ipairs(waiting) do
    if cmsgpack.unpack(packed)[1] == command[1] then return 'early' end
  end
  if not has_room(waiting, command[2]) then return 'not_found' end
  if doors_are_full() then return 'full' end
  redis.call('ZADD', PREFIX .. 'ed', now + door_ms, at_door(id, command))
  redis.call('RPUSH', key, cmsgpack.pack(command))
  redis.call('PEXPIRE', key, door_ms)
  return 'early'
end

return on_each_shard(6, function(own)
  check_shard()
  local verdicts = {}
  for i = 1, #own, 6 do
    local command = {own[i + 2], own[i + 3], own[i + 4], own[i + 5]}
    local r = load(own[i])
    if r then
      unfold(r)
      verdicts[#verdicts + 1] = apply(r, command, now, retention)
    else
      verdicts[#verdicts + 1] = leave_at_door(own[i], own[i + 1], command)
    end
  end
  return verdicts
end)
