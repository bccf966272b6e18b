-- ARGV: clock, partition, last, retention; of each shard its previous, then seven for each entry:
--   'message', position, id, owner, due, topic, record
--   kind of command, position, message id, command id, add_ms, topic, ''
-- Returns for each shard {1, position} when applied, {0, position} for a gap.
-- Alone without allow-oom: a full Redis takes no new messages, but those it has go out.
local partition, last, retention = ARGV[2], tonumber(ARGV[3]), ARGV[4]
local now = clock()
local owners, topics, doors_are_open = {}, {}, false

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
  -- not SET with NX: run once more from a file that was cut, it would keep the owner of before
  if redis.call('EXISTS', PREFIX .. 'm:' .. id) == 1 then return end
  redis.call('SET', PREFIX .. 'm:' .. id, record)
  redis.call('ZADD', PREFIX .. 'o:' .. owner, due, id)
  if not owners[owner] then
    redis.call('SADD', PREFIX .. 'ow', owner)
    owners[owner] = true
  end
  redis.call('ZADD', listed(topic, PENDING), '0', id)
  if not topics[topic] then
    redis.call('ZADD', PREFIX .. 'tp', 0, topic)
    topics[topic] = true
  end
  count('scheduled', 1)
  if doors_are_open then fold_early(id) end
end

-- Read up after a restart: a lease here is one of before, and what ended it may be lost. Then a
-- command that was confirmed after that end must hold, and not come too late for the lease.
local function forget_lease_of_before(r)
  if r.lease > now and not is_vouched_for() then r.lease = now end
end

local function take(what, id, at)
  if what == 'message' then
    insert(id, ARGV[at + 3], ARGV[at + 4], ARGV[at + 5], ARGV[at + 6])
    return
  end
  local r = load(id)
  if not r then return end
  unfold(r)
  forget_lease_of_before(r)
  apply(r, {ARGV[at + 3], what, ARGV[at + 4], ARGV[at + 5]}, now, retention)
end

return on_each_shard(4, function(from, to)
  local standing = tonumber(redis.call('HGET', PREFIX .. 'hw', partition) or -1)
  local previous = tonumber(ARGV[from])
  if standing < previous then return {0, standing} end
  owners, topics = {}, {}
  -- a command at a door is in `ed` before it is there, and no shorter
  doors_are_open = redis.call('EXISTS', PREFIX .. 'ed') == 1
  for i = from + 1, to, 7 do
    if tonumber(ARGV[i + 1]) > standing then take(ARGV[i], ARGV[i + 2], i) end
  end
  if last > standing then
    write_counts()
    redis.call('HSET', PREFIX .. 'hw', partition, ARGV[3])
    standing = last
  end
  return {1, standing}
end)
