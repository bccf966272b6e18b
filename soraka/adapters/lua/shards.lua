-- Sent in front of the scripts that work on several shards in one call: KEYS are their prefixes.
-- ARGV has `common` arguments for all of them, then for each shard its own, as one array of
-- MessagePack: Redis and its client take less than half of the time for that.
-- Returns what `work(own)` has returned for each.
-- One shard is done after the other: a first part of the script has whole shards, and a first part
-- of one.
local function on_each_shard(common, work)
  local replies = {}
  for i, prefix in ipairs(KEYS) do
    PREFIX = prefix
    replies[i] = work(cmsgpack.unpack(ARGV[common + i]))
    write_counts()
  end
  return replies
end
