-- ARGV: clock, partition, last, retention; of each shard its previous, then seven for each entry:
--   position, id, record, owner, due, topic, ''
--   position, message id, '', kind of command, add_ms, topic, command id
-- Returns for each shard {1, position} when applied, {0, position} for a gap.
-- Alone without allow-oom: a full Redis takes no new messages, but those it has go out.
local partition, last, retention = ARGV[2], tonumber(ARGV[3]), ARGV[4]
local now = clock()
local AT_ONCE = 1000 -- messages; all arguments of a call must fit on the stack of Lua
local doors_are_open = false

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

-- New messages are gathered and written together: a call costs Redis as much as five rows in it.
local new

local function rows(lists, name)
  local list = lists[name]
  if not list then
    list = {}
    lists[name] = list
  end
  return list
end

local function add(list, one, other)
  local size = #list
  list[size + 1], list[size + 2] = one, other
end

local function gather(key, id, record, owner, due, topic)
  if new.ids[key] then return end
  new.ids[key], new.count = id, new.count + 1
  add(new.records, key, record)
  add(rows(new.owners, owner), due, id)
  add(rows(new.topics, topic), '0', id)
end

-- Records before their entries, as in common.lua.
local function write()
  redis.call('MSET', unpack(new.records))
  for owner, entries in pairs(new.owners) do
    redis.call('ZADD', PREFIX .. 'o:' .. owner, unpack(entries))
    redis.call('SADD', PREFIX .. 'ow', owner)
  end
  for topic, entries in pairs(new.topics) do
    redis.call('ZADD', listed(topic, PENDING), unpack(entries))
    redis.call('ZADD', PREFIX .. 'tp', '0', topic)
  end
  count('scheduled', new.count)
  if doors_are_open then
    for _, id in pairs(new.ids) do fold_early(id) end
  end
end

-- Those that are absent. An error later in the script leaves no record without its entries: all
-- that is gathered is written before anything else is done.
local function insert(own, places)
  if #places == 0 then return end
  local keys = {}
  for n, i in ipairs(places) do keys[n] = PREFIX .. 'm:' .. own[i + 1] end
  -- not MSETNX: run once more from a file that was cut, it would keep the owner of before
  local some_are_there = redis.call('EXISTS', unpack(keys)) > 0
  new = {ids = {}, count = 0, records = {}, owners = {}, topics = {}}
  for n, i in ipairs(places) do
    if not some_are_there or redis.call('EXISTS', keys[n]) == 0 then
      gather(keys[n], own[i + 1], own[i + 2], own[i + 3], own[i + 4], own[i + 5])
    end
  end
  if new.count > 0 then write() end
end

-- Read up after a restart: a lease here is one of before, and what ended it may be lost. Then a
-- command that was confirmed after that end must hold, and not come too late for the lease.
local function forget_lease_of_before(r)
  if r.lease > now and not is_vouched_for() then r.lease = now end
end

local function obey(own, i)
  local r = load(own[i + 1])
  if not r then return end
  unfold(r)
  forget_lease_of_before(r)
  apply(r, {own[i + 6], own[i + 3], own[i + 4], own[i + 5]}, now, retention)
end

local function take(own, standing)
  local places = {}
  for i = 2, #own, 7 do
    if own[i] > standing then
      local is_message = own[i + 2] ~= ''
      if is_message then places[#places + 1] = i end
      if not is_message or #places == AT_ONCE then
        insert(own, places)
        places = {}
      end
      if not is_message then obey(own, i) end
    end
  end
  insert(own, places)
end

return on_each_shard(4, function(own)
  check_shard()
  local standing = tonumber(redis.call('HGET', PREFIX .. 'hw', partition) or -1)
  if standing < own[1] then return {0, standing} end
  -- a command at a door is in `ed` before it is there, and no shorter
  doors_are_open = redis.call('EXISTS', PREFIX .. 'ed') == 1
  take(own, standing)
  if last > standing then
    write_counts()
    redis.call('HSET', PREFIX .. 'hw', partition, ARGV[3])
    standing = last
  end
  return {1, standing}
end)
