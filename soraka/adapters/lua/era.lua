-- Names one life of one server as a master: Redis makes it anew at each start and at each
-- promotion, so none is ever met again. It also changes when the first replica joins.
-- Asked of the server each time (2 us), since nothing else is lost at the right moments: keys
-- are copied to replicas and to disk, and the script cache outlives a demotion.
local function era()
  return string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
end

local function is_vouched_for(present)
  return redis.call('GET', PREFIX .. 'v') == (present or era())
end
