//! A wide statement of the extended protocol: the rest of the group that its Bind belongs to.

use crate::error::{Fault, SqlState};
use crate::placement::ShardSet;
use crate::planner::plan::{Effect, Route};
use crate::wire::backend;
use crate::wire::frontend::{self, Execute, Target};

use super::member::{close, open};
use super::{Conversation, End, Trouble, Wide, carry_out, report};

/// The portal that the Bind made, as far as the group has come.
struct Portal<'a> {
    wide: &'a Wide,
    name: &'a [u8],
    is_closed: bool,
    /// A Describe is to be answered: by the Execute that follows, or without it.
    describe: bool,
    executed: bool,
}

/// Answers the group that a Bind of a wide statement belongs to, up to its Sync.
///
/// The statement is a transaction of its own, so another one in the same group is refused.
pub(super) async fn run<C: Conversation>(
    client: &mut C,
    wide: &Wide,
    name: &[u8],
) -> Result<(), End> {
    client.answer_parses();
    client.reply(backend::bind_complete);
    let mut portal = Portal {
        wide,
        name,
        is_closed: false,
        describe: false,
        executed: false,
    };
    let mut failed = false;
    loop {
        let (tag, body) = client.next_message().await?;
        if tag == b'X' {
            return Err(End::Client);
        }
        if !failed {
            let result = portal.on_message(client, tag, &body).await;
            failed = !report(client, result)?;
            if failed {
                client.fail_block();
            }
        }
        if tag == b'S' {
            client.reply_ready();
            return Ok(());
        }
    }
}

impl Portal<'_> {
    async fn on_message<C: Conversation>(
        &mut self,
        client: &mut C,
        tag: u8,
        body: &[u8],
    ) -> Result<(), Trouble> {
        let executes = tag == b'E' && self.check_execute(body).is_ok();
        if self.describe && !executes {
            self.describe = false;
            self.describe(client).await?;
        }
        match tag {
            // The end of COPY data that comes late is passed over, as PostgreSQL does.
            b'S' | b'H' | b'c' | b'f' => Ok(()),
            b'D' => match frontend::describe(body).map_err(Fault::from)? {
                Target::Portal(name) => {
                    self.check_name(name)?;
                    self.describe = true;
                    Ok(())
                }
                Target::Statement(_) => Err(one_at_a_time().into()),
            },
            b'E' => {
                self.check_execute(body)?;
                self.executed = true;
                let describe = std::mem::take(&mut self.describe);
                if describe && self.copies() {
                    client.reply(backend::no_data);
                }
                carry_out(client, self.wide, describe).await
            }
            b'C' => {
                match frontend::close(body).map_err(Fault::from)? {
                    Target::Portal(name) => self.is_closed |= name == self.name,
                    Target::Statement(name) if client.close_statement(name) => {}
                    Target::Statement(_) => return Err(one_at_a_time().into()),
                }
                client.reply(backend::close_complete);
                Ok(())
            }
            _ => Err(one_at_a_time().into()),
        }
    }

    fn check_name(&self, name: &[u8]) -> Result<(), Fault> {
        if name == self.name && !self.is_closed {
            return Ok(());
        }
        let name = String::from_utf8_lossy(name);
        Err(Fault::error(
            SqlState::UNKNOWN_PORTAL,
            format!("portal \"{name}\" does not exist"),
        ))
    }

    fn check_execute(&self, body: &[u8]) -> Result<(), Fault> {
        let Execute { portal, max_rows } = frontend::execute(body)?;
        self.check_name(portal)?;
        if self.executed {
            return Err(one_at_a_time());
        }
        let has_rows = matches!(self.wide.route, Route::Concat(_) | Route::InsertSplit(_));
        if has_rows && max_rows != 0 {
            return Err(row_limit());
        }
        Ok(())
    }

    fn copies(&self) -> bool {
        matches!(self.wide.route, Route::CopySplit(_))
            || matches!(self.wide.effect, Effect::CopyIn { .. })
    }

    /// Has one shard describe the rows, which are alike on all.
    async fn describe<C: Conversation>(&self, client: &mut C) -> Result<(), Trouble> {
        if self.copies() {
            client.reply(backend::no_data);
            return Ok(());
        }
        let first = match &self.wide.route {
            Route::Concat(shards) => shards.iter().next(),
            Route::InsertSplit(shares) => shares.first().map(|share| share.shard),
            Route::Session
            | Route::Anywhere
            | Route::AnyShard
            | Route::Single(_)
            | Route::Broadcast { .. }
            | Route::CopySplit(_)
            | Route::Gather(_) => None,
        };
        let shard = first.unwrap_or_else(|| client.topology().home());
        let mut one = ShardSet::default();
        one.insert(shard);
        let mut members = open(client, &one).await?;
        let mut result = Ok(());
        for member in &mut members {
            result = member.describe(client, &self.wide.source).await;
        }
        close(client, members).await;
        result
    }
}

fn one_at_a_time() -> Fault {
    Fault::error(
        SqlState::FEATURE_NOT_SUPPORTED,
        "a statement over several shards must be followed by Sync",
    )
    .detail("It is a transaction of its own; other statements before the Sync would belong to it.")
    .hint("Send it outside the pipeline, or sync after it.")
}

fn row_limit() -> Fault {
    Fault::error(
        SqlState::FEATURE_NOT_SUPPORTED,
        "a row limit on a statement over several shards is not supported yet",
    )
    .hint("Fetch all rows, or add the key to the statement so that one shard answers it.")
}
