//! The console's conversations in both protocols, its commands, and HTTP over a socket.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;

use crate::admin::console::Console;
use crate::admin::fixture::TestHerd;
use crate::admin::herd::Unready;
use crate::admin::http;
use crate::error::Fault;
use crate::metrics::Metrics;
use crate::session::console::{Console as _, Conversation, Next, Rights};

/// A frame's tag and body, from a line such as `P s|SHOW POOLS`: fields between `|` end with a zero.
fn frame(line: &str) -> (u8, Vec<u8>) {
    let (tag, fields) = line.split_once(' ').unwrap_or((line, ""));
    let mut body = Vec::new();
    let parts: Vec<&str> = fields.split('|').collect();
    let text = |body: &mut Vec<u8>, part: &str| {
        body.extend(part.as_bytes());
        body.push(0);
    };
    match tag {
        "Q" => text(&mut body, fields),
        "P" => {
            text(&mut body, parts[0]);
            text(&mut body, parts[1]);
            body.extend([0, 0]);
        }
        "B" => {
            text(&mut body, parts[0]);
            text(&mut body, parts[1]);
            body.extend([0, 0, 0, 0]);
            body.extend(if parts[2] == "binary" {
                &[0, 1, 0, 1][..]
            } else {
                &[0, 0][..]
            });
        }
        "D" | "C" => {
            body.push(fields.as_bytes()[0]);
            text(&mut body, &fields[1..]);
        }
        "E" => {
            text(&mut body, parts[0]);
            body.extend(parts[1].parse::<i32>().unwrap().to_be_bytes());
        }
        _ => (),
    }
    (tag.as_bytes()[0], body)
}

/// Replies as their tags, with the tag of CommandComplete, the SQLSTATE of errors and the status of ReadyForQuery.
fn replies(mut out: &[u8]) -> String {
    let mut shown = Vec::new();
    while let Some((&tag, rest)) = out.split_first() {
        let length = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
        let (body, after) = (&rest[4..length], &rest[length..]);
        shown.push(match tag {
            b'C' => format!("C:{}", String::from_utf8_lossy(&body[..body.len() - 1])),
            b'Z' => format!("Z:{}", char::from(body[0])),
            b'E' => {
                let fields = String::from_utf8_lossy(body).into_owned();
                format!(
                    "E:{}",
                    fields
                        .split('\0')
                        .find_map(|field| field.strip_prefix('C'))
                        .unwrap()
                )
            }
            _ => char::from(tag).to_string(),
        });
        out = after;
    }
    shown.join(" ")
}

fn open(herd: TestHerd, rights: Rights) -> (Arc<TestHerd>, Box<dyn Conversation>) {
    let herd = Arc::new(herd);
    let shared = Arc::clone(&herd);
    (herd, Console::new(shared).open("postgres", rights))
}

async fn check(frames: &[&str], expect: &str) {
    let (_, mut talk) = open(TestHerd::new(), Rights::Admin);
    let mut out = Vec::new();
    for line in frames {
        let (tag, body) = frame(line);
        talk.frame(tag, &body, &mut out).await;
    }
    assert_eq!(replies(&out), expect, "{frames:?}");
}

#[tokio::test]
async fn simple_queries_are_answered() {
    check(&["Q SHOW VERSION"], "T D C:SHOW Z:I").await;
    check(&["Q ; -- nothing"], "I Z:I").await;
    check(&["Q SELECT 1; RESET ALL; bogus"], "E:42601 Z:I").await;
    check(
        &["Q SELECT 1; KILL_CLIENT 99; SELECT 2"],
        "T D C:SELECT 1 E:22023 Z:I",
    )
    .await;
    check(
        &["Q RECONNECT shop", "Q PAUSE nowhere", "Q pause pgbouncer"],
        "C:RECONNECT Z:I E:3D000 Z:I E:22023 Z:I",
    )
    .await;
    check(
        &["Q RELOAD", "Q KILL_CLIENT 17"],
        "E:F0000 Z:I C:KILL_CLIENT Z:I",
    )
    .await;
    check(
        &[
            "Q SET listen = 'x'",
            "Q SET query_timeout = '1s'",
            "Q SET nope=1",
        ],
        "E:22023 Z:I C:SET Z:I E:22023 Z:I",
    )
    .await;
    check(
        &["Q RESUME shop", "Q RESUME other"],
        "C:RESUME Z:I E:22023 Z:I",
    )
    .await;
}

#[tokio::test]
async fn blocks_change_the_status_only() {
    check(
        &["Q BEGIN", "Q SHOW STATE", "Q COMMIT"],
        "C:BEGIN Z:T T D D D D C:SHOW Z:T C:COMMIT Z:I",
    )
    .await;
    let failed = ["Q BEGIN", "Q bogus", "Q SHOW STATE", "Q COMMIT"];
    check(
        &failed,
        "C:BEGIN Z:T E:42601 Z:E E:25P02 Z:E C:ROLLBACK Z:I",
    )
    .await;
    check(&["Q SAVEPOINT a"], "E:25P01 Z:I").await;
}

#[tokio::test]
async fn the_extended_protocol_is_postgresqls() {
    check(
        &[
            "P s|SHOW LISTS",
            "D Ss",
            "B p|s|text",
            "D Pp",
            "E p|2",
            "E p|0",
            "S",
            "E p|0",
            "S",
        ],
        "1 t T 2 T D D s D D D D D D D D D D D D D D D C:SHOW Z:I E:34000 Z:I",
    )
    .await;
    check(
        &["P |RECONNECT", "B ||text", "D P", "E |0", "S"],
        "1 2 n C:RECONNECT Z:I",
    )
    .await;
    check(&["P |", "B ||text", "D P", "E |0", "S"], "1 2 n I Z:I").await;
    check(
        &[
            "P a|bogus",
            "B |a|text",
            "E |0",
            "H",
            "S",
            "P |SHOW STATE",
            "S",
        ],
        "E:42601 Z:I 1 Z:I",
    )
    .await;
    check(
        &[
            "P a|SELECT 1",
            "P a|SELECT 1",
            "S",
            "C Sa",
            "C Sunknown",
            "B |a|text",
            "S",
        ],
        "1 E:42P05 Z:I 3 3 E:26000 Z:I",
    )
    .await;
    check(
        &["P a|SELECT 1", "S", "Q DEALLOCATE a", "Q DEALLOCATE a"],
        "1 Z:I C:DEALLOCATE Z:I E:26000 Z:I",
    )
    .await;
    check(&["P |SELECT 1; SELECT 2", "S"], "E:42601 Z:I").await;
}

#[tokio::test]
async fn binary_results_are_sent_when_asked_for() {
    let (_, mut talk) = open(TestHerd::new(), Rights::Stats);
    let mut out = Vec::new();
    for line in ["P |SELECT 7", "B ||binary", "E |0"] {
        let (tag, body) = frame(line);
        talk.frame(tag, &body, &mut out).await;
    }
    let row = [b'D', 0, 0, 0, 14, 0, 1, 0, 0, 0, 4, 0, 0, 0, 7];
    assert!(out.windows(row.len()).any(|part| part == row), "{out:?}");
}

#[tokio::test]
async fn no_body_breaks_it() {
    for tag in 0..=255_u8 {
        for body in [
            &b""[..],
            b"\0",
            b"S",
            b"\xFF\0",
            b"a\0\0\0",
            b"a\0b\0\xFF\xFF\0",
            &[0, 0, 0, 0, 0, 9, 255, 255, 255, 255],
        ] {
            let (_, mut talk) = open(TestHerd::new(), Rights::Admin);
            let mut out = Vec::new();
            let next = talk.frame(tag, body, &mut out).await;
            replies(&out);
            let is_last = !b"QPBDECFHSdcf".contains(&tag);
            assert_eq!(next == Next::Close, is_last, "{tag} {body:?}");
        }
    }
}

#[tokio::test]
async fn a_canceled_pause_is_undone() {
    let (herd, mut talk) = open(
        TestHerd {
            pause_hangs: true,
            ..TestHerd::new()
        },
        Rights::Admin,
    );
    let (mut out, body) = (Vec::new(), frame("Q PAUSE shop").1);
    {
        let mut waiting = talk.frame(b'Q', &body, &mut out);
        let polled = waiting
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Pending));
    }
    assert_eq!(talk.canceled(&mut out).await, Next::Go);
    assert_eq!(replies(&out), "E:57014 Z:I");
    assert_eq!(
        *herd.told.lock().unwrap(),
        ["pause Some(\"shop\")", "resume Some(\"shop\")"]
    );
}

#[tokio::test]
async fn rights_are_held() {
    let console = Console::new(Arc::new(TestHerd::new()));
    assert_eq!(console.rights("postgres"), Ok(Rights::Admin));
    assert_eq!(console.rights("grafana"), Ok(Rights::Stats));
    let code = |fault: Fault| fault.code.as_str();
    assert_eq!(console.rights("app").map_err(code), Err("42501"));
    for command in [
        "PAUSE",
        "RELOAD",
        "SHUTDOWN",
        "KILL",
        "SET query_timeout = 1",
    ] {
        let refused = console
            .query(command, "grafana", Rights::Stats)
            .await
            .map_err(code);
        assert_eq!(refused, Err("42501"), "{command}");
    }
    assert!(
        console
            .query("SET application_name = 'x'", "grafana", Rights::Stats)
            .await
            .is_ok()
    );
}

async fn fetch(address: std::net::SocketAddr, path: &str) -> String {
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn http_answers() {
    let reason = Unready {
        database: "shop".into(),
        shard: "shard_0".into(),
        reason: "connection refused".into(),
    };
    let herd = Arc::new(TestHerd {
        unready: vec![reason],
        ..TestHerd::new()
    });
    let listener = http::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let taken = http::bind(&address.to_string()).await.unwrap_err();
    assert!(taken.hint.is_some());
    let (stop, stopped) = oneshot::channel::<()>();
    let served = tokio::spawn(http::serve(
        listener,
        herd,
        Arc::new(Metrics::new()),
        async {
            stopped.await.unwrap_or_default();
        },
    ));
    let check = async |path: &str, status: &str, part: &str| {
        let answer = fetch(address, path).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(part),
            "{path}: {answer}"
        );
    };
    check("/health", "200", "ok").await;
    check("/ready", "503", "\"shard\":\"shard_0\"").await;
    check("/metrics", "200", "pgherd_out_of_sync_total 0\n").await;
    check(
        "/metrics",
        "200",
        "pgherd_pool_waiting{database=\"shop\",shard=\"shard_1\"} 1\n",
    )
    .await;
    check("/", "200", "<title>pgherd</title>").await;
    check(
        "/api/shards.json",
        "200",
        "\"reason\":\"connection refused\"",
    )
    .await;
    check("/api/clients.json", "404", "no such table").await;
    drop(stop);
    served.await.unwrap().unwrap();
}
