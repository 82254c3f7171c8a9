//! tokio-postgres: the same names s0, s1, … on every client, implicit pipelines, portals, COPY, cancel.
//!
//! Prints a line a habit, `ok` or `no` and why, for `run.py`.

use std::error::Error;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt as _, SinkExt as _};
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, SimpleQueryMessage};

type Outcome = Result<(), Box<dyn Error>>;

#[expect(
    clippy::needless_pass_by_value,
    reason = "what is compared is made for it"
)]
fn same<T: PartialEq + std::fmt::Debug>(got: T, expected: T) -> Outcome {
    if got == expected {
        Ok(())
    } else {
        Err(format!("got {got:?}, expected {expected:?}").into())
    }
}

fn config() -> Config {
    let setting = |name: &str| std::env::var(name).unwrap_or_default();
    let mut config = Config::new();
    config
        .host(setting("PGHOST"))
        .port(setting("PGPORT").parse().expect("PGPORT is a number"))
        .user(setting("PGUSER"))
        .password(setting("PGPASSWORD"))
        .dbname(setting("PGDATABASE"));
    config
}

async fn connect() -> Result<Client, Box<dyn Error>> {
    let (client, connection) = config().connect(NoTls).await?;
    drop(tokio::spawn(connection));
    Ok(client)
}

async fn habit(name: &str, work: impl Future<Output = Outcome>) {
    match work.await {
        Ok(()) => println!("ok\t{name}"),
        Err(error) => {
            let source = error.source().map(|source| format!(": {source}"));
            println!("no\t{name}\t{error}{}", source.unwrap_or_default());
        }
    }
}

async fn prepared_on_every_shard() -> Outcome {
    let client = connect().await?;
    let statement = client.prepare("select v from kv where k = $1").await?;
    for key in 1..60_i64 {
        let row = client.query_one(&statement, &[&key]).await?;
        same(row.get::<_, String>(0), format!("v{key}"))?;
    }
    Ok(())
}

async fn pipelined_by_concurrent_futures() -> Outcome {
    let client = connect().await?;
    let one = client.prepare("select v from kv where k = $1").await?;
    let (a, b, c) = tokio::try_join!(
        client
            .query_one(&one, &[&1_i64])
            .map(|row| row.map(|row| row.get::<_, String>(0))),
        client
            .query_one(&one, &[&2_i64])
            .map(|row| row.map(|row| row.get::<_, String>(0))),
        client
            .query_one(&one, &[&3_i64])
            .map(|row| row.map(|row| row.get::<_, String>(0))),
    )?;
    same((a.as_str(), b.as_str(), c.as_str()), ("v1", "v2", "v3"))
}

async fn same_names_on_two_clients() -> Outcome {
    let (one, two) = (connect().await?, connect().await?);
    let first = one.prepare("select v from kv where k = $1").await?;
    let second = two.prepare("select k from kv where k = $1").await?;
    for key in 10..20_i64 {
        same(
            one.query_one(&first, &[&key]).await?.get::<_, String>(0),
            format!("v{key}"),
        )?;
        same(two.query_one(&second, &[&key]).await?.get::<_, i64>(0), key)?;
    }
    Ok(())
}

async fn portal_with_a_row_limit() -> Outcome {
    let mut client = connect().await?;
    let block = client.transaction().await?;
    let portal = block.bind("select generate_series(1, 25)", &[]).await?;
    let mut sizes = Vec::new();
    loop {
        let rows = block.query_portal(&portal, 10).await?;
        sizes.push(rows.len());
        if rows.len() < 10 {
            break;
        }
    }
    block.rollback().await?;
    same(sizes, vec![10, 10, 5])
}

async fn blocks_and_savepoints() -> Outcome {
    let mut client = connect().await?;
    let mut block = client.transaction().await?;
    block
        .execute("insert into kv values ($1, 'tokio')", &[&9701_i64])
        .await?;
    let inner = block.transaction().await?;
    let twice = inner
        .execute("insert into kv values ($1, 'twice')", &[&9701_i64])
        .await;
    same(
        twice.err().and_then(|error| error.code().cloned()),
        Some(SqlState::UNIQUE_VIOLATION),
    )?;
    inner.rollback().await?;
    let row = block
        .query_one("select v from kv where k = $1", &[&9701_i64])
        .await?;
    same(row.get::<_, &str>(0), "tokio")?;
    block.rollback().await?;
    same(
        client
            .query("select v from kv where k = 9701", &[])
            .await?
            .len(),
        0,
    )
}

async fn copy_split_by_key() -> Outcome {
    let client = connect().await?;
    let mut sink = pin!(
        client
            .copy_in::<_, Bytes>("copy kv (k, v) from stdin")
            .await?
    );
    for key in 9800..9900 {
        sink.send(Bytes::from(format!("{key}\tcopied\n"))).await?;
    }
    same(sink.as_mut().finish().await?, 100)?;
    for key in 9800..9900_i64 {
        same(
            client
                .execute("delete from kv where k = $1", &[&key])
                .await?,
            1,
        )?;
    }
    Ok(())
}

async fn settings_stay() -> Outcome {
    let client = connect().await?;
    client
        .batch_execute("set work_mem = '9MB'; set search_path = public")
        .await?;
    for key in 1..10_i64 {
        let _row = client
            .query_one("select v from kv where k = $1", &[&key])
            .await?;
    }
    same(
        client
            .query_one("show work_mem", &[])
            .await?
            .get::<_, &str>(0),
        "9MB",
    )
}

async fn startup_options() -> Outcome {
    let (client, connection) = config()
        .options("-c statement_timeout=66s")
        .connect(NoTls)
        .await?;
    drop(tokio::spawn(connection));
    same(
        client
            .query_one("show statement_timeout", &[])
            .await?
            .get::<_, &str>(0),
        "66s",
    )
}

async fn cancel() -> Outcome {
    let client = connect().await?;
    let token = client.cancel_token();
    let sleeping = client.batch_execute("select pg_sleep(30)");
    let cancelling = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        token.cancel_query(NoTls).await
    };
    let (slept, cancelled) = tokio::join!(sleeping, cancelling);
    cancelled?;
    same(
        slept.err().and_then(|error| error.code().cloned()),
        Some(SqlState::QUERY_CANCELED),
    )?;
    same(
        client
            .query_one("select v from kv where k = 5", &[])
            .await?
            .get::<_, &str>(0),
        "v5",
    )
}

async fn notifications() -> Outcome {
    let (listener, mut connection) = config().connect(NoTls).await?;
    let (heard, mut hears) = tokio::sync::mpsc::channel(8);
    drop(tokio::spawn(async move {
        while let Some(Ok(message)) =
            std::future::poll_fn(|context| connection.poll_message(context)).await
        {
            if let AsyncMessage::Notification(note) = message {
                drop(heard.send(note.payload().to_owned()).await);
            }
        }
    }));
    listener.batch_execute("listen tokio_habit").await?;
    connect()
        .await?
        .batch_execute("notify tokio_habit, 'hi'")
        .await?;
    let payload = tokio::time::timeout(Duration::from_secs(10), hears.recv()).await?;
    same(payload.as_deref(), Some("hi"))
}

async fn several_statements() -> Outcome {
    let client = connect().await?;
    let answers = client
        .simple_query("select 1; select v from kv where k = 6; select 3")
        .await?;
    let values: Vec<&str> = answers
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            SimpleQueryMessage::CommandComplete(_) | SimpleQueryMessage::RowDescription(_) | _ => {
                None
            }
        })
        .collect();
    same(values, vec!["1", "v6", "3"])
}

async fn error_and_on() -> Outcome {
    let client = connect().await?;
    let twice = client
        .execute("insert into kv values (1, 'again')", &[])
        .await;
    let error = twice.err().ok_or("a duplicate was taken")?;
    let said = error.as_db_error().ok_or("no error of the server")?;
    same(
        (said.code(), said.constraint()),
        (&SqlState::UNIQUE_VIOLATION, Some("kv_pkey")),
    )?;
    same(
        client
            .query_one("select v from kv where k = 1", &[])
            .await?
            .get::<_, &str>(0),
        "v1",
    )
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    habit("prepared_on_every_shard", prepared_on_every_shard()).await;
    habit(
        "pipelined_by_concurrent_futures",
        pipelined_by_concurrent_futures(),
    )
    .await;
    habit("same_names_on_two_clients", same_names_on_two_clients()).await;
    habit("portal_with_a_row_limit", portal_with_a_row_limit()).await;
    habit("blocks_and_savepoints", blocks_and_savepoints()).await;
    habit("copy_split_by_key", copy_split_by_key()).await;
    habit("settings_stay", settings_stay()).await;
    habit("startup_options", startup_options()).await;
    habit("cancel", cancel()).await;
    habit("notifications", notifications()).await;
    habit("several_statements", several_statements()).await;
    habit("error_and_on", error_and_on()).await;
}
