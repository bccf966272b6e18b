-- Sent in front of the scripts that work on several shards in one call: KEYS are their prefixes.
-- ARGV has `common` arguments for all of them, then for each shard how many are its own, and those.
-- Returns what `work(from, to)`, which gets the place of a shard's own, has returned for each.
-- One shard is done after the other: a first part of the script has whole shards, and a first part
-- of one.
local function on_each_shard(common, work)
  local replies, at = {}, common + 1
  for i, prefix in ipairs(KEYS) do
    PREFIX = prefix
    local ends = at + ARGV[at]
    replies[i] = work(at + 1, ends)
    write_counts()
    at = ends + 1
  end
  return replies
end
