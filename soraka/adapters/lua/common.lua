-- Sent in front of each script. KEYS[1] is the prefix of all keys of one shard, such as '{3}:';
-- its braces keep them in one slot of a cluster, where a script gets one. ARGV[1] is the clock of a
-- test, or ''.
--
-- An id is 22 characters, or another text behind a '!': see redis_ids.py. Lua's `<` is no order of
-- ids, it goes by the locale of the server.
--
--   m:<id>     record, one string: HEAD, owner, topic, commands, reason, body, history
--   o:<owner>  pending messages by when to look at them: due time, or end of the lease
--   ow         owners that may have pending messages
--   hw         partition -> position of the last record applied
--   ly         the layout of its records, see `check_shard`
--   v          the era of the server in which claims are answered, see `era.lua`
--   e:<id>     commands that came before their message
--   k:<key>    '<id> <digest>' of an idempotency key; its shard is that of the key, see redis_keys.py
--   ed         '<id> <command id>' of each of them -> when it is forgotten
--   hb, hd     messages held back, see `hold`: by when that ends, and by when they were due
--   n          counters
--   i:<topic>:<state>  messages; all scores are 0, so they are in the order of their ids
--   tp         topics that have entries in `i`; in their order likewise
--   rt         topic -> how long its succeeded and cancelled messages are kept
--   td         where the next look for stale entries of `i` begins: topic, state, id; twice, see `tidy`
--   yn:<series>  names of its values
--   y:<series>:<two hours since the epoch>:<name>  samples: minute of the two hours -> sum
--
-- Order of writes: the record, then its index entry; an entry is added before the old one is
-- removed; counters last. A Redis killed with its AOF cut off inside a script leaves the first
-- writes of that script in the file, and the load after the next runs them (seen on 7.0.15).
-- So any first part of a script, run once more before what came later, must lose nothing.
--
-- The first part of HEAD is patched in place by claim and settle, and the history grows at the end,
-- so that the AOF grows by 26 bytes and an attempt and not by the body. The sizes are written with
-- what they measure alone: a patch fits any record of its message, also one of a script cut off.
-- redis_record.py has the same layout, and the same number for it, the first byte of a record.
-- docs/operations.md says how to change it.
local PREFIX = KEYS[1]
local LAYOUT = 5
local CHANGING, SIZES = '<BBI8I8I4HH', '<I4HHHHI4'
local HEAD, HEAD_SIZE = CHANGING .. string.sub(SIZES, 2), 42
local MOST = 65535 -- tries and releases that HEAD has room for
local PENDING, SUCCEEDED, CANCELLED, DEAD = 0, 1, 2, 3
local LEASED = 4 -- in a record, of one that is pending. Its moment is then the end of the lease; of
-- others that are pending until when they are held back, of the rest when they were finished
local PARKED = '~' -- begins the owners of the messages of paused topics
-- Verdicts kept per message, and commands kept at the door of an unknown one.
local REMEMBERED = 128

-- A number as an argument of a command. Left to itself, Redis writes it as a double: 1 us.
local function whole(number)
  return string.format('%d', number)
end

local function clock()
  if ARGV[1] ~= '' then return tonumber(ARGV[1]) end
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function changing(r)
  local state, moment = r.state, r.finished
  if r.lease > 0 then
    state, moment = LEASED, r.lease
  elseif state == PENDING then
    moment = r.not_before
  end
  return struct.pack(CHANGING, LAYOUT, state, r.due, moment, r.attempt, r.tries, r.releases)
end

local function head(r)
  return changing(r) .. struct.pack(SIZES, r.ttr, r.owner_size, r.topic_size, r.commands_size,
    r.reason_size, r.body_size)
end

local function refuse_layout(id, layout)
  error(redis.error_reply('LAYOUT ' .. layout .. ' ' .. id))
end

-- Before something is added to a shard. One from before shards had `ly` has positions without it: it
-- may name messages in ways that are not found here, so they would seem to be gone.
local function check_shard()
  local found = redis.call('GET', PREFIX .. 'ly')
  if found == whole(LAYOUT) then return end
  if found or redis.call('EXISTS', PREFIX .. 'hw') == 1 then
    error(redis.error_reply('LAYOUTS shard ' .. PREFIX .. ' has layout ' .. (found or '4 or less') ..
      ', this version of soraka reads ' .. LAYOUT))
  end
  redis.call('SET', PREFIX .. 'ly', whole(LAYOUT))
end

-- The record of a message, or nil; fails for one of another layout. `commands`, `reason`, `body`,
-- `history` only after unfold().
local function load(id)
  local raw = redis.call('GET', PREFIX .. 'm:' .. id)
  if not raw then return nil end
  if string.byte(raw) ~= LAYOUT then refuse_layout(id, string.byte(raw)) end
  local _, state, due, moment, attempt, tries, releases, ttr, owner_size, topic_size,
    commands_size, reason_size, body_size = struct.unpack(HEAD, raw)
  local not_before, lease, finished = 0, 0, 0
  if state == LEASED then
    state, lease = PENDING, moment
  elseif state == PENDING then
    not_before = moment
  else
    finished = moment
  end
  local at = HEAD_SIZE + owner_size
  -- all at once: a table that grows costs as much as the rest
  return {
    id = id, raw = raw, state = state, due = due, not_before = not_before, lease = lease,
    attempt = attempt, tries = tries, releases = releases, finished = finished, ttr = ttr,
    owner_size = owner_size, topic_size = topic_size, commands_size = commands_size,
    reason_size = reason_size, body_size = body_size, was_held = not_before > 0,
    owner = string.sub(raw, HEAD_SIZE + 1, at), topic = string.sub(raw, at + 1, at + topic_size),
  }
end

-- As loaded: where the body ends, and the history begins.
local function body_end(r)
  return HEAD_SIZE + r.owner_size + r.topic_size + r.commands_size + r.reason_size + r.body_size
end

local function unfold(r)
  local at = HEAD_SIZE + r.owner_size + r.topic_size
  local function take(size)
    at = at + size
    return string.sub(r.raw, at - size + 1, at)
  end
  r.commands, r.reason, r.body = take(r.commands_size), take(r.reason_size), take(r.body_size)
  r.history = string.sub(r.raw, at + 1)
end

-- Returns the first part of HEAD as it is now.
local function save_head(r)
  local changed = changing(r)
  redis.call('SETRANGE', PREFIX .. 'm:' .. r.id, '0', changed)
  return changed
end

-- After unfold() only. A record that expires is kept for good by this, unless `how` says so.
local function save_whole(r, how)
  r.owner_size, r.topic_size = #r.owner, #r.topic
  r.commands_size, r.reason_size = #r.commands, #r.reason
  local record = {head(r), r.owner, r.topic, r.commands, r.reason, r.body, r.history}
  redis.call('SET', PREFIX .. 'm:' .. r.id, table.concat(record), unpack(how or {}))
end

-- Of a record that is there, or ''.
local function state_in(raw)
  local layout, state = string.byte(raw, 1, 2)
  if layout ~= LAYOUT then return nil end
  return state == LEASED and PENDING or state
end

local function look_at(r)
  if r.lease > 0 then return r.lease end
  return math.max(r.due, r.not_before)
end

local function release(id)
  redis.call('ZREM', PREFIX .. 'hb', id)
  redis.call('ZREM', PREFIX .. 'hd', id)
end

-- A message is held back from a release with a delay until it is claimed or its due time changes;
-- its record has `not_before`. `hb` is the first to go and the last to come: what a cut AOF leaves
-- is in `hd`, where `backlog.lua` puts it right.
local function hold(r)
  if r.not_before > 0 then
    redis.call('ZADD', PREFIX .. 'hd', whole(r.due), r.id)
    redis.call('ZADD', PREFIX .. 'hb', whole(r.not_before), r.id)
  elseif r.was_held then
    release(r.id)
  end
end

local function index(r)
  redis.call('ZADD', PREFIX .. 'o:' .. r.owner, whole(look_at(r)), r.id)
  hold(r)
end

local function unindex(r)
  redis.call('ZREM', PREFIX .. 'o:' .. r.owner, r.id)
end

local function listed(topic, state)
  return PREFIX .. 'i:' .. topic .. ':' .. state
end

local function relist(r, before)
  redis.call('ZADD', listed(r.topic, r.state), '0', r.id)
  redis.call('ZREM', listed(r.topic, before), r.id)
end

local kept_for = {}

-- How long succeeded and cancelled messages of a topic are kept. All shards have the same.
local function retention_of(topic, otherwise)
  if not kept_for[topic] then
    kept_for[topic] = redis.call('HGET', PREFIX .. 'rt', topic) or otherwise
  end
  return kept_for[topic]
end

local tally = {}

local function count(what, by)
  tally[what] = (tally[what] or 0) + by
end

local function write_counts()
  for what, by in pairs(tally) do
    if by ~= 0 then redis.call('HINCRBY', PREFIX .. 'n', what, by) end
    tally[what] = nil
  end
end

-- The caller saves the record, then retires it.
local function finish(r, state, now)
  r.state, r.not_before, r.lease, r.finished = state, 0, 0, now
end

local function retire(r, retention)
  redis.call('PEXPIRE', PREFIX .. 'm:' .. r.id, retention)
  relist(r, PENDING)
  unindex(r)
  hold(r)
end
