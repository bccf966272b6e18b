-- ARGV: clock, retention, dead retention, then five for each outcome:
--   message id, attempt, how it ended, delay, reason
-- Returns 1 or 0 (stale) for each.
local retention, dead_retention = ARGV[2], tonumber(ARGV[3])
local now = clock()

-- Each changes the record; finished, it returns how long to keep it.
local ways = {}

function ways.succeeded(r)
  finish(r, SUCCEEDED, now)
  count('succeeded', 1)
  return retention
end

function ways.dead(r)
  finish(r, DEAD, now)
  redis.call('ZADD', PREFIX .. 'dead', now, r.id)
  count('dead', 1)
  return dead_retention
end

function ways.retry(r, delay)
  r.due, r.lease = now + delay, 0
end

function ways.released(r, delay)
  r.tries = r.tries - 1 -- but not `attempt`, which is never given twice
  r.lease = 0
  if delay > 0 then r.due = now + delay end
  count('attempts', -1)
end

local function save(r, reason)
  if reason == '' and r.reason_size == 0 then return save_head(r) end
  unfold(r)
  r.reason = reason
  save_whole(r)
end

-- A lease given up (0) is over, one that ran out is not until it is given anew.
local function settle(id, attempt, ended, delay, reason)
  local r = load(id)
  if not r or r.state ~= PENDING or r.lease == 0 or r.attempt ~= attempt then return 0 end
  local kept = ways[ended](r, delay)
  save(r, reason)
  if kept then retire(r, kept) else index(r) end
  return 1
end

local answers = {}
for i = 4, #ARGV, 5 do
  answers[#answers + 1] = settle(ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2],
    tonumber(ARGV[i + 3]), ARGV[i + 4])
end
write_counts()
redis.call('ZREMRANGEBYSCORE', PREFIX .. 'dead', '-inf', now - dead_retention)
return answers
