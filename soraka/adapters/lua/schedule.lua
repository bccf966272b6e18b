-- ARGV: clock, partition, previous, last, retention, then seven for each entry:
--   'message', position, id, owner, due, topic, record
--   kind of command, position, message id, command id, add_ms, topic, ''
-- Returns {1, position} when applied, {0, position} for a gap.
-- Alone without allow-oom: a full Redis takes no new messages, but those it has go out.
local partition, previous, last, retention = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local now = clock()
local standing = tonumber(redis.call('HGET', PREFIX .. 'hw', partition) or -1)
if standing < previous then return {0, standing} end

local owners, topics = {}, {}

local function fold_early(id)
  local key = PREFIX .. 'e:' .. id
  local waiting = redis.call('LRANGE', key, 0, -1)
  if #waiting == 0 then return end
  local r = load(id)
  unfold(r)
  for _, packed in ipairs(waiting) do apply(r, cmsgpack.unpack(packed), now, retention) end
  redis.call('DEL', key)
  for _, packed in ipairs(waiting) do
    redis.call('ZREM', PREFIX .. 'ed', at_door(id, cmsgpack.unpack(packed)))
  end
end

local function insert(id, owner, due, topic, record)
  local key = PREFIX .. 'm:' .. id
  if redis.call('EXISTS', key) == 1 then return end
  redis.call('SET', key, record)
  redis.call('ZADD', PREFIX .. 'o:' .. owner, due, id)
  if not owners[owner] then
    redis.call('SADD', PREFIX .. 'ow', owner)
    owners[owner] = true
  end
  redis.call('ZADD', listed(topic, PENDING), 0, id)
  if not topics[topic] then
    redis.call('ZADD', PREFIX .. 'tp', 0, topic)
    topics[topic] = true
  end
  count('scheduled', 1)
  fold_early(id)
end

-- Read up after a restart: a lease here is one of before, and what ended it may be lost. Then a
-- command that was confirmed after that end must hold, and not come too late for the lease.
local function forget_lease_of_before(r)
  if r.lease > now and not is_vouched_for() then r.lease = now end
end

for i = 6, #ARGV, 7 do
  local what, position, id = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2]
  if position > standing then
    if what == 'message' then
      insert(id, ARGV[i + 3], ARGV[i + 4], ARGV[i + 5], ARGV[i + 6])
    else
      local r = load(id)
      if r then
        unfold(r)
        forget_lease_of_before(r)
        apply(r, {ARGV[i + 3], what, ARGV[i + 4], ARGV[i + 5]}, now, retention)
      end
    end
  end
end

write_counts()
if last > standing then
  redis.call('HSET', PREFIX .. 'hw', partition, ARGV[4])
  standing = last
end
return {1, standing}
