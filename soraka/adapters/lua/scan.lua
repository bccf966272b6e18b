-- ARGV: clock, owner, how many about, the cursor and the era that gave it.
-- Returns {next cursor, era, {id, when to look at it, ...}}; cursor '0' at the end.
-- Another server's cursor leads nowhere: it has its own order, so it begins anew.
local cursor, present = ARGV[4], era()
if ARGV[5] ~= present then cursor = '0' end
local found = redis.call('ZSCAN', PREFIX .. 'o:' .. ARGV[2], cursor, 'COUNT', ARGV[3])
return {found[1], present, found[2]}
