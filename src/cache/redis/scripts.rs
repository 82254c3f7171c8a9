//! What runs in Redis, one script at a time: marks, their end, and what is kept if nothing was written
//! meanwhile.
//!
//! A tag is 16 random bytes, or `P` and 16 bytes while it is being written. Its writers stand in a hash of
//! their own, each with the time (in ms, of Redis) until which it counts; a proxy that dies does not end its
//! marks, their time does. A tag that is not there equals nothing.

use bb8_redis::redis::aio::MultiplexedConnection;
use bb8_redis::redis::{self, RedisError};

/// KEYS: for each tag its value, then for each its writers. ARGV: the writer, its time in ms, a new value.
const MARK: &str = r"
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local n = #KEYS / 2
for i = 1, n do
  redis.call('HSET', KEYS[n + i], ARGV[1], now + tonumber(ARGV[2]))
  redis.call('SET', KEYS[i], 'P' .. ARGV[3])
end
return now
";

/// KEYS as for MARK. ARGV: the writer, a new value.
const BUMP: &str = r"
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local n = #KEYS / 2
for i = 1, n do
  local writers = KEYS[n + i]
  redis.call('HDEL', writers, ARGV[1])
  local all = redis.call('HGETALL', writers)
  for j = 1, #all, 2 do
    if tonumber(all[j + 1]) < now then redis.call('HDEL', writers, all[j]) end
  end
  if redis.call('HLEN', writers) == 0 then
    redis.call('SET', KEYS[i], ARGV[2])
  else
    redis.call('SET', KEYS[i], 'P' .. ARGV[2])
  end
end
return now
";

/// KEYS: who reads the answer, then as for MARK. ARGV: a new value for tags that are not there, or whose writers'
/// time is up; who wants to read the answer, and the ms that others wait for it at most. Whoever is the first
/// is told 1.
const CAPTURE: &str = r"
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local n = (#KEYS - 1) / 2
local out = {now, 0}
local written = false
for i = 1, n do
  local value = redis.call('GET', KEYS[i + 1])
  if not value then
    value = ARGV[1]
    redis.call('SET', KEYS[i + 1], value)
  elseif #value == 17 then
    local writers = KEYS[n + i + 1]
    local all = redis.call('HGETALL', writers)
    local live = false
    for j = 1, #all, 2 do
      if tonumber(all[j + 1]) < now then redis.call('HDEL', writers, all[j]) else live = true end
    end
    if not live then
      value = ARGV[1]
      redis.call('SET', KEYS[i + 1], value)
    end
  end
  written = written or #value == 17
  out[i + 2] = value
end
if not written and redis.call('SET', KEYS[1], ARGV[2], 'NX', 'PX', ARGV[3]) then out[2] = 1 end
return out
";

/// KEYS: the answer, who reads it, then the tags. ARGV: the answer, the ms that it is kept, who has read it, the
/// values of the tags.
const FILL: &str = r"
if redis.call('GET', KEYS[2]) == ARGV[3] then redis.call('DEL', KEYS[2]) end
for i = 3, #KEYS do
  if redis.call('GET', KEYS[i]) ~= ARGV[i + 1] then return 0 end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
";

/// KEYS: who reads an answer. ARGV: who does not any more.
const RELEASE: &str = r"
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
";

/// The scripts as a server knows them: by the names that it gave.
#[derive(Clone, Debug)]
pub(super) struct Scripts {
    pub(super) mark: String,
    pub(super) bump: String,
    pub(super) capture: String,
    pub(super) fill: String,
    pub(super) release: String,
}

impl Scripts {
    /// Makes them known to a server.
    ///
    /// # Errors
    /// It runs no scripts, or the connection is lost.
    ///
    /// # Cancel safety
    /// Safe: those that it knows it knows.
    pub(super) async fn load(
        connection: &mut MultiplexedConnection,
    ) -> Result<Scripts, RedisError> {
        let mut names = Vec::with_capacity(5);
        for script in [MARK, BUMP, CAPTURE, FILL, RELEASE] {
            let mut load = redis::cmd("SCRIPT");
            load.arg("LOAD").arg(script);
            names.push(load.query_async::<String>(connection).await?);
        }
        let mut names = names.into_iter();
        let mut next = || names.next().unwrap_or_default();
        Ok(Scripts {
            mark: next(),
            bump: next(),
            capture: next(),
            fill: next(),
            release: next(),
        })
    }
}
