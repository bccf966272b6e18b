-- ARGV: clock, retention, dead retention, then five for each outcome:
--   message id, attempt, how it ended, delay, reason
-- Returns 1 or 0 (stale) for each.
local retention, dead_retention = ARGV[2], tonumber(ARGV[3])
local now = clock()
local tally = {succeeded = 0, dead = 0, attempts = 0}

local function wait_until(r, due)
  r.due, r.lease = due, 0
  index(r)
end

local ways = {}

function ways.succeeded(r)
  finish(r, SUCCEEDED, now)
  tally.succeeded = tally.succeeded + 1
  return retention
end

function ways.dead(r)
  finish(r, DEAD, now)
  redis.call('ZADD', PREFIX .. 'dead', now, r.id)
  tally.dead = tally.dead + 1
  return dead_retention
end

function ways.retry(r, delay)
  wait_until(r, now + delay)
end

function ways.released(r)
  r.tries = r.tries - 1 -- but not `attempt`, which is never given twice
  wait_until(r, r.due)
  tally.attempts = tally.attempts - 1
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
  if kept then expire(r, kept) end
  return 1
end

local answers = {}
for i = 4, #ARGV, 5 do
  answers[#answers + 1] = settle(ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2],
    tonumber(ARGV[i + 3]), ARGV[i + 4])
end
for what, by in pairs(tally) do count(what, by) end
redis.call('ZREMRANGEBYSCORE', PREFIX .. 'dead', '-inf', now - dead_retention)
return answers
