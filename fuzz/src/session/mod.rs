//! A session in a real engine: a client sends messages in any order, servers answer well or badly.
//!
//! Whatever went before, the finale must be answered or the client be told good-bye. Before one
//! honest server the client hears exactly what that server itself would say.

mod herd;
mod hostile;
mod postgres;
mod script;

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::chop;
use herd::{Habits, Heard, Herd, PATIENCE, startup};
use hostile::Hostility;
use postgres::{Postgres, message};
use script::{Script, finale};

/// How long a silent server is waited for before it is cut off.
const SILENCE: Duration = Duration::from_millis(30);

/// How long the client may be in the middle of sending before silent servers are cut off.
const STUCK: Duration = Duration::from_secs(1);

/// How a conversation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Finale,
    Closed,
    /// Neither within the time given.
    Silence,
}

/// The first byte chooses the database and the servers' habits, the second the chopping; then come
/// the client's messages and, behind `~`, what the servers do wrong.
pub fn run(data: &[u8]) {
    let Some(([options, seed], data)) = data.split_first_chunk::<2>() else {
        return;
    };
    let cut = data.iter().position(|byte| *byte == b'~');
    let (messages, acts) = data.split_at(cut.unwrap_or(data.len()));
    let plan = Plan {
        database: ["one", "held", "four", "one"][usize::from(options & 3)],
        script: Script::read(messages),
        acts,
        is_chatty: options & 4 != 0,
        chop: (options & 8 != 0).then_some(*seed),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .expect("a runtime");
    runtime.block_on(plan.carry_out());
}

struct Plan<'a> {
    database: &'static str,
    script: Script,
    acts: &'a [u8],
    is_chatty: bool,
    chop: Option<u8>,
}

impl Plan<'_> {
    async fn carry_out(&self) {
        let is_honest = self.acts.is_empty();
        let herd = Herd::start(Habits {
            is_chatty: self.is_chatty,
            chop: self.chop,
            hostility: (!is_honest).then(|| Hostility::new(self.acts)),
        });
        let mut heard = Heard::default();
        let mut stream = herd.connect().await;
        let mut end = End::Closed;
        if log_in(&herd, &mut stream, self.database, is_honest).await {
            let patience = if is_honest { PATIENCE } else { SILENCE };
            end = self
                .converse(&herd, &mut stream, &mut heard, patience)
                .await;
            if end == End::Silence && !is_honest {
                // The finale may have met a bad server: from here on there are only good ones.
                herd.reform();
                heard.finale = false;
                let _sent = stream.write_all(&finale()).await;
                end = listen(&mut stream, &mut heard, PATIENCE).await;
            }
        } else {
            assert!(!is_honest, "no login");
        }
        assert!(end != End::Silence, "no end; heard {}", heard.tags);
        if is_honest {
            self.check_answers(&heard, end);
        }
        self.check_next(&herd, stream, end).await;
        herd.end().await;
    }

    /// Sends everything and hears what comes.
    async fn converse(
        &self,
        herd: &Herd,
        stream: &mut UnixStream,
        heard: &mut Heard,
        patience: Duration,
    ) -> End {
        let (mut read, mut write) = stream.split();
        let sending = async {
            for part in &self.script.parts {
                let chunks = match self.chop {
                    Some(seed) => chop(part, seed),
                    None => vec![part.as_slice()],
                };
                for chunk in chunks {
                    if write.write_all(chunk).await.is_err() {
                        return;
                    }
                    tokio::task::yield_now().await;
                }
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
            }
            if !self.script.leaves {
                // If it fails, the other half hears of it.
                let _sent = write.write_all(&finale()).await;
            }
        };
        let limit = PATIENCE.saturating_mul(2);
        let hearing = hear(&mut read, heard);
        // A server's silence counts from the last message on: none is cut off in the middle.
        let both = async {
            let mut hearing = std::pin::pin!(hearing);
            let mut sending = std::pin::pin!(sending);
            // What waits for a silent server may be more than the sockets hold.
            let stuck = tokio::time::sleep(if self.acts.is_empty() { limit } else { STUCK });
            tokio::select! {
                end = &mut hearing => return end,
                () = &mut sending => {}
                () = stuck => {
                    herd.reform();
                    tokio::select! {
                        end = &mut hearing => return end,
                        () = &mut sending => {}
                    }
                }
            }
            timeout(patience, hearing).await.unwrap_or(End::Silence)
        };
        timeout(limit, both).await.unwrap_or(End::Silence)
    }

    /// One honest server: what the client heard is what the server would have told it.
    fn check_answers(&self, heard: &Heard, end: End) {
        if self.database == "four" || self.script.is_wrong {
            return;
        }
        let mut oracle = Postgres::default();
        let mut expected = Heard::default();
        let mut sure = 0;
        let sent = [self.script.bytes(), finale()].concat();
        let mut rest = sent.as_slice();
        while let Some((.., end)) = message(rest) {
            oracle
                .feed(&rest[..end])
                .iter()
                .for_each(|answer| expected.feed(answer));
            if !oracle.is_unsure && expected.is_ready() {
                sure = expected.tags.len();
            }
            rest = &rest[end..];
        }
        if oracle.closed {
            // A client that loses its place is free to be sent away, or to be helped.
            return;
        }
        let told = heard.tags.get(..sure).unwrap_or(&heard.tags);
        assert_eq!(
            told,
            &expected.tags[..sure],
            "of {} and {}",
            heard.tags,
            expected.tags
        );
        assert_eq!(end, End::Finale);
    }

    /// The next client is served, by the same server connection if nothing went wrong with it.
    async fn check_next(&self, herd: &Herd, stream: UnixStream, end: End) {
        let view = herd.view().await;
        if self.acts.is_empty() {
            assert_eq!(view.out_of_sync, 0, "out of sync with an honest server");
        } else {
            herd.reform();
        }
        let is_free = view.clients.iter().all(|client| client.pinned.is_none());
        let accepted = herd.accepted();
        drop(stream);
        for _ in 0..3 {
            let mut next = herd.connect().await;
            assert!(log_in(herd, &mut next, self.database, true).await);
            next.write_all(&finale()).await.expect("it listens");
            let mut heard = Heard::default();
            let end = listen(&mut next, &mut heard, PATIENCE).await;
            assert_eq!(end, End::Finale, "the next client; heard {}", heard.tags);
            assert_eq!(heard.tags, "ZICZITDCZI");
        }
        if self.acts.is_empty() && end == End::Finale && is_free && self.database == "one" {
            assert_eq!(herd.accepted(), accepted, "a server connection was lost");
        }
    }
}

/// Whether a login came to its ReadyForQuery; a server that keeps silent is cut off.
async fn log_in(herd: &Herd, stream: &mut UnixStream, database: &str, is_honest: bool) -> bool {
    stream
        .write_all(&startup(database))
        .await
        .expect("it listens");
    let mut heard = Heard::default();
    let mut patience = if is_honest { PATIENCE } else { SILENCE };
    let mut buffer = vec![0; 1024];
    loop {
        match timeout(patience, stream.read(&mut buffer)).await {
            Ok(Ok(0) | Err(_)) => return false,
            Ok(Ok(count)) => heard.feed(&buffer[..count]),
            Err(_) if !is_honest && patience == SILENCE => {
                herd.reform();
                patience = PATIENCE;
            }
            Err(_) => panic!("a login without an end; heard {}", heard.tags),
        }
        if heard.is_ready() {
            return true;
        }
    }
}

async fn listen(stream: &mut UnixStream, heard: &mut Heard, patience: Duration) -> End {
    timeout(patience, hear(stream, heard))
        .await
        .unwrap_or(End::Silence)
}

async fn hear(stream: &mut (impl AsyncReadExt + Unpin), heard: &mut Heard) -> End {
    let mut buffer = vec![0; 8192];
    while !heard.done {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return End::Closed,
            Ok(count) => heard.feed(&buffer[..count]),
        }
    }
    End::Finale
}
