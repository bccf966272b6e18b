-- ARGV: clock, how long to keep, then for each sample: series, two hours, minute of them, how many
-- values, and two for each: name, what is added.
local keep_ms = ARGV[2]
local at = 3
while at <= #ARGV do
  local names = PREFIX .. 'yn:' .. ARGV[at]
  local key = PREFIX .. 'y:' .. ARGV[at] .. ':' .. ARGV[at + 1] .. ':'
  local minute, ends = ARGV[at + 2], at + 3 + 2 * ARGV[at + 3]
  for i = at + 4, ends, 2 do
    local name, added = ARGV[i], ARGV[i + 1]
    -- The first of this minute; those that come later find it all set.
    if redis.call('HINCRBY', key .. name, minute, added) == tonumber(added) then
      redis.call('PEXPIRE', key .. name, keep_ms)
      redis.call('SADD', names, name)
    end
  end
  redis.call('PEXPIRE', names, keep_ms)
  at = ends + 1
end
return 0
