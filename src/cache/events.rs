//! Changes made elsewhere, as messages of Redis channels tell of them: what depends on them is dropped.
//!
//! A message may come before the change it tells of can be seen, so that it is dropped again a little later;
//! and a message may be lost. Events make answers new sooner; that none is given beyond its age does not rest
//! on them.

use std::sync::Arc;
use std::time::Duration;

use bb8_redis::redis::{Client, Msg, RedisError};
use futures_util::StreamExt as _;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::{Cache, Names};
use crate::config::{self, Invalidate};
use crate::planner::cache::{self, Tag};

/// When what a message tells of is dropped once more.
const AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];
/// The wait after a failure; it doubles up to the longest.
const RETRY: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Messages that are to be dropped for once more, at most; those beyond are not.
const LATER_MAX: usize = 10_000;

/// The tags that a message of a channel tells of.
pub fn tags_of(event: &Invalidate, payload: &[u8]) -> Vec<Tag> {
    let table: Arc<str> = event.table.as_str().into();
    let mut tags = cache::of_table(&table);
    if let Some(key) = event.key.as_ref().and_then(|path| key_of(path, payload)) {
        tags.retain(|tag| !matches!(tag, Tag::Unknown(_)));
        tags.push(Tag::Key(table, key.into()));
    }
    tags
}

/// The key that a message of JSON holds behind these names of fields.
fn key_of(path: &[String], payload: &[u8]) -> Option<String> {
    let message: Value = serde_json::from_slice(payload).ok()?;
    let mut found = &message;
    for name in path {
        found = found.get(name)?;
    }
    match found {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            None
        }
    }
}

/// Listens to the channels of a configuration for as long as it runs. `databases` are those whose tables they
/// may mean.
///
/// # Cancel safety
/// Safe: nobody listens any more.
pub async fn listen(cache: Arc<Cache>, config: config::Cache, databases: Vec<String>) {
    let Some(url) = config.redis.filter(|_| !config.invalidate_on.is_empty()) else {
        return;
    };
    let later = Arc::new(Semaphore::new(LATER_MAX));
    let mut retry = RETRY;
    loop {
        match hear(&cache, &url.0, &config.invalidate_on, &databases, &later).await {
            Ok(()) => retry = RETRY,
            Err(error) => tracing::warn!(%error, "channels of Redis are not heard"),
        }
        tokio::time::sleep(retry).await;
        retry = retry.saturating_mul(2).min(RETRY_MAX);
    }
}

/// Hears the channels until the connection is lost.
async fn hear(
    cache: &Arc<Cache>,
    url: &str,
    events: &[Invalidate],
    databases: &[String],
    later: &Arc<Semaphore>,
) -> Result<(), RedisError> {
    let mut channels = Client::open(url)?.get_async_pubsub().await?;
    for event in events {
        channels.subscribe(&event.channel).await?;
    }
    // What was said while nobody listened is not known: as if any row had changed.
    for event in events {
        tell(cache, event, b"", databases, None).await;
    }
    let mut messages = channels.into_on_message();
    while let Some(message) = messages.next().await {
        on_message(cache, &message, events, databases, later).await;
    }
    Ok(())
}

async fn on_message(
    cache: &Arc<Cache>,
    message: &Msg,
    events: &[Invalidate],
    databases: &[String],
    later: &Arc<Semaphore>,
) {
    let channel = message.get_channel_name();
    for event in events.iter().filter(|event| event.channel == channel) {
        tell(
            cache,
            event,
            message.get_payload_bytes(),
            databases,
            Some(later),
        )
        .await;
    }
}

/// Drops what a message tells of, now and where `later` has room for it again.
async fn tell(
    cache: &Arc<Cache>,
    event: &Invalidate,
    payload: &[u8],
    databases: &[String],
    later: Option<&Arc<Semaphore>>,
) {
    let tags = tags_of(event, payload);
    let table: Arc<str> = event.table.as_str().into();
    for database in databases {
        let names: Names = tags
            .iter()
            .map(|tag| format!("{database}:{tag}").into())
            .collect();
        cache.counts.of(database, &table).events.add(1);
        drop_now(cache, names.clone()).await;
        let room = later.and_then(|later| Arc::clone(later).try_acquire_owned().ok());
        if let Some(room) = room {
            let cache = Arc::clone(cache);
            drop(tokio::spawn(async move {
                for wait in AGAIN {
                    tokio::time::sleep(wait).await;
                    drop_now(&cache, names.clone()).await;
                }
                drop(room);
            }));
        }
    }
}

async fn drop_now(cache: &Cache, names: Names) {
    if cache.touch(names).await.is_err() {
        tracing::debug!("Redis could not be told of what a message told");
    }
}

#[cfg(test)]
mod tests {
    use super::tags_of;
    use crate::config::Invalidate;

    #[test]
    fn a_message_tells_of_a_key_or_of_all_rows() {
        let event = |key: Option<&str>| Invalidate {
            channel: "c".into(),
            table: "t".into(),
            key: key.map(|path| path.split('.').map(str::to_owned).collect()),
        };
        let check = |key: Option<&str>, payload: &str, expect: &str| {
            let tags = tags_of(&event(key), payload.as_bytes());
            let tags: Vec<String> = tags.iter().map(ToString::to_string).collect();
            assert_eq!(tags.join(" "), expect, "{key:?} {payload}");
        };
        check(None, "anything", "q:t a:t x:t r:t");
        check(
            Some("productId"),
            r#"{"productId": 5}"#,
            "q:t x:t r:t t:t:5",
        );
        check(
            Some("productId"),
            r#"{"productId": "a-b"}"#,
            "q:t x:t r:t t:t:a-b",
        );
        check(
            Some("product.id"),
            r#"{"product": {"id": 7}}"#,
            "q:t x:t r:t t:t:7",
        );
        check(
            Some("productId"),
            r#"{"productId": 5.5}"#,
            "q:t a:t x:t r:t",
        );
        check(Some("productId"), r#"{"other": 5}"#, "q:t a:t x:t r:t");
        check(Some("productId"), "no JSON", "q:t a:t x:t r:t");
    }
}
