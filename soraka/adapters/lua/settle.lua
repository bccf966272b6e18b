-- ARGV: clock, retention, dead retention; of each shard seven for each outcome:
--   message id, attempt, end of its lease, how it ended, delay, reason, note for the history
-- Returns 1 or 0 (stale) for each.
local retention, dead_retention = ARGV[2], tonumber(ARGV[3])
local now = clock()

-- Number of the attempt, when the next is due, and how long the note is that follows.
local ENTRY, ENTRY_SIZE = '<I4I8H', 14
local HISTORY_LENGTH = 40

-- Each changes the record; finished, it returns how long to keep it.
local ways = {}

function ways.succeeded(r)
  finish(r, SUCCEEDED, now)
  count('succeeded', 1)
  return retention_of(r.topic, retention)
end

function ways.dead(r)
  finish(r, DEAD, now)
  count('dead', 1)
  return dead_retention
end

function ways.retry(r, delay)
  r.due, r.lease = now + delay, 0
end

function ways.released(r, delay)
  r.tries = r.tries - 1 -- but not `attempt`, which is never given twice
  r.releases = math.min(r.releases + 1, MOST)
  r.lease = 0
  if delay > 0 then r.not_before = now + delay end
  count('attempts', -1)
end

local function entry(r, ended, note)
  if ended == 'released' then return '' end
  local next_at = 0
  if ended == 'retry' then next_at = r.due end
  return struct.pack(ENTRY, r.tries, next_at, #note) .. note
end

local function is_full(r)
  if r.attempt <= HISTORY_LENGTH then return false end
  local at, length = body_end(r), 0
  while at < #r.raw do
    local _, _, size = struct.unpack(ENTRY, r.raw, at + 1)
    at, length = at + ENTRY_SIZE + size, length + 1
  end
  return length >= HISTORY_LENGTH
end

local function without_oldest(history)
  local _, _, size = struct.unpack(ENTRY, history)
  return string.sub(history, ENTRY_SIZE + size + 1)
end

local function save(r, reason, added)
  local full = is_full(r)
  if reason == '' and r.reason_size == 0 and not full then
    save_head(r)
    if added ~= '' then redis.call('APPEND', PREFIX .. 'm:' .. r.id, added) end
    return
  end
  unfold(r)
  if full and added ~= '' then r.history = without_oldest(r.history) end
  r.reason, r.history = reason, r.history .. added
  save_whole(r)
end

-- A lease given up (0) is over, one that ran out is not until it is given anew.
local function settle(id, attempt, lease, ended, delay, reason, note)
  local r = load(id)
  if not r or r.state ~= PENDING then return 0 end
  if r.lease == 0 or r.lease ~= lease or r.attempt ~= attempt then return 0 end
  local kept = ways[ended](r, delay)
  save(r, reason, entry(r, ended, note))
  if kept then retire(r, kept) else index(r) end
  return 1
end

return on_each_shard(3, function(own)
  local answers = {}
  for i = 1, #own, 7 do
    answers[#answers + 1] = settle(own[i], own[i + 1], own[i + 2], own[i + 3], own[i + 4],
      own[i + 5], own[i + 6])
  end
  return answers
end)
