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

local function postpone(r, add_ms)
  r.due = math.min(r.due + add_ms, LAST_MOMENT)
  -- A lease that ran out is given up: a late settle of it must not swallow the added time.
  r.lease = 0
end

-- `r` is unfolded.
local function apply(r, command, now, retention)
  local id, kind, add_ms, topic = unpack(command)
  if topic ~= r.topic then return 'not_found' end
  local known = remembered(r, id)
  if known then return known end
  if r.state ~= PENDING then return 'too_late' end
  if r.lease > now then
    remember(r, id, 'too_late')
    save_whole(r)
    return 'too_late'
  end
  remember(r, id, 'applied')
  if kind == 'cancel' then finish(r, CANCELLED, now) else postpone(r, tonumber(add_ms)) end
  save_whole(r)
  if r.state == CANCELLED then
    retire(r, retention)
    count('cancelled', 1)
  else
    index(r)
  end
  return 'applied'
end
