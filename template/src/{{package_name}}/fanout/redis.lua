-- What the fan-out does in Redis, each call in one step that nothing comes between.
--
--   <prefix>sequence:<channel>   a hash: began, and last; expires with the history
--   <prefix>history:<channel>    a stream: the ids are the sequences; i is the id of the publishing, s who is skipped, m the message
--   <prefix>present:<channel>    a hash: of each member, on how many nodes it is
--   <prefix>farewell:<channel>   a hash: of each member, the `left` that belongs to the `joined` that was told
--   <prefix>node:<node>          a hash: the length of a channel's name, ":", the channel and a member; and nothing
--   <prefix>nodes                a sorted set: until when, in microseconds, each node lives without another sign
--   <prefix>lifetime             a text that is lost when all else is lost
--   <prefix>channel:<channel>    is published to: sequence, who is skipped or "-", and the message, with spaces between

local prefix, history, seconds = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

local function now()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function key(kind, name)
  return prefix .. kind .. ':' .. name
end

-- Begin a channel that is not known, with the time, so that no number comes twice, whatever was forgotten.
local function begin(channel)
  local counter = key('sequence', channel)
  if redis.call('EXISTS', counter) == 0 then
    local began = string.format('%.0f', now())
    redis.call('HSET', counter, 'began', began, 'last', began)
  end
  redis.call('EXPIRE', counter, seconds)
  return counter
end

local function publish(channel, message, skipped, id)
  local counter, stream = begin(channel), key('history', channel)
  local sequence = string.format('%.0f', redis.call('HINCRBY', counter, 'last', 1))
  if history > 0 then
    redis.call('XADD', stream, 'MAXLEN', history, sequence .. '-1', 'i', id, 's', skipped, 'm', message)
    redis.call('EXPIRE', stream, seconds)
  end
  redis.call('PUBLISH', key('channel', channel), sequence .. ' ' .. skipped .. ' ' .. message)
  return sequence
end

local function entry_of(channel, member)
  return #channel .. ':' .. channel .. member
end

local function depart(node, channel, member)
  local members, entries, entry = key('present', channel), key('node', node), entry_of(channel, member)
  if redis.call('HDEL', entries, entry) == 1 and redis.call('HINCRBY', members, member, -1) <= 0 then
    local farewells = key('farewell', channel)
    local left = redis.call('HGET', farewells, member)
    redis.call('HDEL', members, member)
    redis.call('HDEL', farewells, member)
    if left and left ~= '' then publish(channel, left, '-', '') end
  end
end

local operations = {}

function operations.publish(channel, message, skipped, id, again)
  if again == '1' then
    for _, kept in ipairs(redis.call('XREVRANGE', key('history', channel), '+', '-')) do
      if kept[2][2] == id then return string.match(kept[1], '%d+') end
    end
  end
  return publish(channel, message, skipped, id)
end

function operations.since(channel, after)
  local counter = redis.call('HMGET', begin(channel), 'began', 'last')
  if after == '' or history == 0 then return {counter[1], counter[2], {}} end
  return {counter[1], counter[2], redis.call('XRANGE', key('history', channel), '(' .. after .. '-1', '+')}
end

function operations.arrive(node, channel, member, joined, left)
  if redis.call('HSET', key('node', node), entry_of(channel, member), '') == 1 then
    if redis.call('HINCRBY', key('present', channel), member, 1) == 1 then
      redis.call('HSET', key('farewell', channel), member, left)
      if joined ~= '' then publish(channel, joined, '-', '') end
    end
  end
end

operations.depart = depart

function operations.members(channel)
  return redis.call('HKEYS', key('present', channel))
end

function operations.entries(node)
  return redis.call('HKEYS', key('node', node))
end

-- Say that a node lives on for so many seconds, and bury those that have not said so for as long.
function operations.pulse(node, alive)
  local nodes, lifetime = prefix .. 'nodes', prefix .. 'lifetime'
  redis.call('SET', lifetime, node .. now(), 'NX')
  local known = redis.call('ZSCORE', nodes, node) and 1 or 0
  redis.call('ZADD', nodes, now() + alive * 1000000, node)
  for _, dead in ipairs(redis.call('ZRANGEBYSCORE', nodes, '-inf', now())) do
    for _, entry in ipairs(redis.call('HKEYS', key('node', dead))) do
      local length, rest = string.match(entry, '^(%d+):(.*)$')
      depart(dead, string.sub(rest, 1, length), string.sub(rest, length + 1))
    end
    redis.call('ZREM', nodes, dead)
  end
  return {redis.call('GET', lifetime), known}
end

return operations[ARGV[4]](unpack(ARGV, 5))
