-- Applies one command; sent in front of the scripts that do.
-- A command is {id, kind, add_ms, topic}; a verdict 'applied', 'too_late' or 'not_found'.

-- `commands` is ' <command id>=<verdict>' for each, the oldest first.
local function remember(r, id, verdict)
  local _, kept = string.gsub(r.commands, ' ', '')
  if kept >= REMEMBERED then
    r.commands = string.sub(r.commands, (string.find(r.commands, ' ', 2, true)))
  end
  r.commands = r.commands .. ' ' .. id .. '=' .. verdict
  return verdict
end

local function remembered(r, id)
  local _, ends = string.find(r.commands, ' ' .. id .. '=', 1, true)
  return ends and string.match(r.commands, '^[%a_]+', ends + 1)
end

-- Member of `ed`.
local function at_door(id, command)
  return id .. ' ' .. command[1]
end

local LAST_MOMENT = 2 ^ 53 -- the last whole millisecond that a score tells apart

-- Each changes the record.
local effects = {}

function effects.cancel(r, _, now)
  finish(r, CANCELLED, now)
end

function effects.add_time(r, add_ms)
  r.due, r.not_before = math.min(r.due + add_ms, LAST_MOMENT), 0
  -- A lease that ran out is given up: a late settle of it must not swallow the added time.
  r.lease = 0
end

function effects.fire_now(r, _, now)
  r.due, r.not_before, r.lease = math.min(r.due, now), 0, 0
end

-- `attempt` goes on: none is given twice.
function effects.redrive(r, _, now)
  r.state, r.due, r.tries, r.releases, r.finished = PENDING, now, 0, 0, 0
end

local function is_too_late(r, kind, now)
  if kind == 'redrive' then return r.state ~= DEAD end
  return r.state ~= PENDING or r.lease > now
end

local function revive(r)
  redis.call('SADD', PREFIX .. 'ow', r.owner)
  index(r)
  relist(r, DEAD)
  count('redriven', 1)
end

-- `r` is unfolded.
local function apply(r, command, now, retention)
  local id, kind, add_ms, topic = unpack(command)
  if topic ~= r.topic then return 'not_found' end
  local known = remembered(r, id)
  if known then return known end
  if is_too_late(r, kind, now) then
    -- Also when it is finished: it may be redriven.
    remember(r, id, 'too_late')
    save_whole(r, {'KEEPTTL'})
    return 'too_late'
  end
  remember(r, id, 'applied')
  effects[kind](r, tonumber(add_ms), now)
  save_whole(r)
  if kind == 'cancel' then
    retire(r, retention_of(r.topic, retention))
    count('cancelled', 1)
  elseif kind == 'redrive' then
    revive(r)
  else
    index(r)
  end
  return 'applied'
end
