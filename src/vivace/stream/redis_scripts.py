"""What the Redis store does in one stroke, as Lua: every script compares fencing tokens where it writes a stream.

Keys of a stream: `vivace:run:ID` (hash), `vivace:events:ID` (Redis stream, entry N-0 is event N), `vivace:tokens:ID`
(pairs of 32-bit numbers: choice, token) and `vivace:reader:ID` (there while a server has a reader of another's stream).
Of all: `vivace:leases` (running streams by the moment their lease ends), `vivace:ended` (ended ones by the moment they
are forgotten), `vivace:sizes` and `vivace:bytes` (what each takes, and all together). All times are those of the Redis
server, in milliseconds. The scripts name their keys themselves, so one Redis has to hold them all (no Redis Cluster).
"""

_COMMON = """
local function now_ms()
    local t = redis.call('TIME')
    return t[1] * 1000 + t[2] / 1000  -- with its fraction, so that streams of one millisecond keep their order
end
local function keys_of(id)
    return 'vivace:run:' .. id, 'vivace:events:' .. id, 'vivace:tokens:' .. id
end
local function grow(id, bytes)
    redis.call('HINCRBY', 'vivace:sizes', id, bytes)
    redis.call('INCRBY', 'vivace:bytes', bytes)
end
local function forget(id)
    local size = tonumber(redis.call('HGET', 'vivace:sizes', id) or '0')
    redis.call('HDEL', 'vivace:sizes', id)
    redis.call('DECRBY', 'vivace:bytes', size)
    redis.call('ZREM', 'vivace:leases', id)
    redis.call('ZREM', 'vivace:ended', id)
    local run, events, tokens = keys_of(id)
    redis.call('DEL', run, events, tokens, 'vivace:reader:' .. id)
end
"""

BEGIN = (
    _COMMON
    + """
local id, owner, kind, request, retain_ms, server, lease_ms, run_ms = unpack(ARGV)
local run = keys_of(id)
if redis.call('EXISTS', run) == 1 then
    return redis.call('HGET', run, 'server') == server and 1 or 0
end
redis.call('HSET', run, 'owner', owner, 'kind', kind, 'request', request, 'status', 'running', 'fence', 1,
    'server', server, 'last', 0, 'bytes', 0, 'progress', '{}', 'retain_ms', retain_ms)
redis.call('PEXPIRE', run, run_ms)
redis.call('ZADD', 'vivace:leases', now_ms() + lease_ms, id)
grow(id, #request)
return 1
"""
)
"""1: begun, or this server had begun it; 0: the name is taken."""

APPEND = (
    _COMMON
    + """
local id, fence, status, progress, tokens, num_saved, first, max_bytes, lease_ms, run_ms = unpack(ARGV, 1, 10)
local HEAD, OVERHEAD = 10, 200
local run, events, kept_tokens = keys_of(id)
local known = redis.call('HMGET', run, 'fence', 'last', 'bytes', 'retain_ms')
if known[1] ~= fence then return 'moved' end
first = tonumber(first)
local count = (#ARGV - HEAD) / 3
local last, bytes = tonumber(known[2]), tonumber(known[3])
if last == first + count - 1 then return 'ok' end  -- said twice, because its answer was lost
if last ~= first - 1 or redis.call('STRLEN', kept_tokens) ~= 8 * num_saved then return 'gap' end
local before = bytes
for place = 0, count - 1 do
    local name, payload, reading = unpack(ARGV, HEAD + 1 + 3 * place, HEAD + 3 + 3 * place)
    redis.call('XADD', events, (first + place) .. '-0', 'n', name, 'p', payload, 'r', reading)
    bytes = bytes + #payload + OVERHEAD
end
while bytes > tonumber(max_bytes) and redis.call('XLEN', events) > 1 do
    local oldest = redis.call('XRANGE', events, '-', '+', 'COUNT', 1)[1]
    bytes = bytes - #oldest[2][4] - OVERHEAD
    redis.call('XDEL', events, oldest[1])
end
if #tokens > 0 then redis.call('APPEND', kept_tokens, tokens) end
redis.call('HSET', run, 'last', first + count - 1, 'bytes', bytes, 'progress', progress)
grow(id, bytes - before + #tokens)
local ttl = tonumber(run_ms)
if status == 'running' then
    redis.call('ZADD', 'vivace:leases', now_ms() + lease_ms, id)
else
    redis.call('HSET', run, 'status', status)
    redis.call('ZREM', 'vivace:leases', id)
    ttl = tonumber(known[4])
    redis.call('ZADD', 'vivace:ended', now_ms() + ttl, id)
end
for _, key in ipairs({run, events, kept_tokens}) do redis.call('PEXPIRE', key, ttl) end
return 'ok'
"""
)
"""'ok', 'moved' (another server holds the stream, or nobody knows it) or 'gap' (events before these never arrived)."""

CLAIM = (
    _COMMON
    + """
local id, server, lease_ms = unpack(ARGV)
local run = keys_of(id)
local status = redis.call('HGET', run, 'status')
if not status then forget(id) return 0 end
if status ~= 'running' then redis.call('ZREM', 'vivace:leases', id) return 0 end
local until_ms = redis.call('ZSCORE', 'vivace:leases', id)
if until_ms and tonumber(until_ms) > now_ms() then return 0 end
redis.call('HSET', run, 'server', server)
redis.call('ZADD', 'vivace:leases', now_ms() + lease_ms, id)
return redis.call('HINCRBY', run, 'fence', 1)
"""
)
"""The new fencing token; 0: it is not to be had."""

BEAT = (
    _COMMON
    + """
local lease_ms = ARGV[1]
local told, now = {}, now_ms()
for place = 2, #ARGV, 2 do
    local id, fence = ARGV[place], ARGV[place + 1]
    local known = redis.call('HMGET', keys_of(id), 'fence', 'status', 'stop')
    local is_ours = known[1] == fence and known[2] == 'running'
    if is_ours then redis.call('ZADD', 'vivace:leases', now + lease_ms, id) end
    told[#told + 1] = {is_ours and 1 or 0, known[3] and 1 or 0, redis.call('EXISTS', 'vivace:reader:' .. id)}
end
return told
"""
)
"""For each pair of id and token: is it ours, is its end wanted, is it read elsewhere."""

ORPHANS = (
    _COMMON
    + """
return redis.call('ZRANGEBYSCORE', 'vivace:leases', '-inf', now_ms(), 'LIMIT', 0, ARGV[1])
"""
)
"""Streams whose lease has run out."""

SWEEP = (
    _COMMON
    + """
local max_bytes, most = tonumber(ARGV[1]), ARGV[2]
for _, id in ipairs(redis.call('ZRANGEBYSCORE', 'vivace:ended', '-inf', now_ms(), 'LIMIT', 0, most)) do forget(id) end
while tonumber(redis.call('GET', 'vivace:bytes') or '0') > max_bytes do
    local oldest = redis.call('ZRANGE', 'vivace:ended', 0, 0)[1]
    if not oldest then break end
    forget(oldest)
end
return redis.call('GET', 'vivace:bytes') or '0'
"""
)
"""Forgets ended streams whose time has come, and the oldest ones while all together are too large."""

FORGET = _COMMON + "forget(ARGV[1])"
"""Forgets one stream, whoever holds it."""
