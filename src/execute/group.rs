//! A wide statement of the extended protocol: the rest of the group that its Bind belongs to.

use std::sync::Arc;

use crate::error::{Fault, SqlState};
use crate::merge::Finish;
use crate::metrics::catalogue::RouteLabel;
use crate::placement::ShardSet;
use crate::planner::plan::{Effect, Gather, Route};
use crate::wire::backend;
use crate::wire::frontend::{self, Execute, Target};

use super::gather::{self, Gathered};
use super::member::{close, open_parts};
use super::merge::Answer;
use super::{Conversation, End, Trouble, Twin, Wide, carry_out, complete, report};

/// The portal that the Bind made, as far as the group has come.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own; no two of them make a state"
)]
struct Portal<'a, T> {
    wide: &'a Wide,
    name: &'a [u8],
    is_closed: bool,
    /// A Describe is to be answered: by the Execute that follows, or without it.
    describe: bool,
    executed: bool,
    /// The answer, while only a part of it was asked for.
    answer: Option<Answer>,
    /// The same of one that is on a twin.
    gathered: Option<Gathered<T>>,
    /// It turned out to be one that needs a twin.
    is_gathered: bool,
    /// Whether all of it was.
    is_through: bool,
    /// The RowDescription of an answer that was.
    description: Vec<u8>,
}

/// Answers the group that a Bind of a wide statement belongs to, up to its Sync, or up to another statement.
pub(super) async fn run<C: Conversation>(
    client: &mut C,
    wide: &Wide,
    name: &[u8],
) -> Result<(), End> {
    client.answer_parses();
    client.reply(backend::bind_complete);
    let mut portal: Portal<'_, C::Twin> = Portal {
        wide,
        name,
        is_closed: false,
        describe: false,
        executed: false,
        answer: None,
        gathered: None,
        is_gathered: false,
        is_through: false,
        description: Vec::new(),
    };
    let result = portal.follow(client).await;
    if result.is_ok() {
        portal.stay(client).await;
    }
    portal.end(client).await;
    if result? {
        client.reply_ready();
    }
    Ok(())
}

impl<'a, T: Twin> Portal<'a, T> {
    /// Carries out what the client sends, up to its Sync. Returns whether that has come: otherwise another
    /// statement has.
    async fn follow<C: Conversation<Twin = T>>(&mut self, client: &mut C) -> Result<bool, End> {
        let mut failed = false;
        loop {
            if !failed && matches!(client.next_tag().await?, b'P' | b'B') {
                if !std::mem::take(&mut self.describe) {
                    return Ok(false);
                }
                let result = self.describe(client).await;
                failed = !report(client, result)?;
                continue;
            }
            let (tag, body) = client.next_message().await?;
            if tag == b'X' {
                return Err(End::Client);
            }
            if !failed && self.is_of_another(client, tag, &body) {
                client.unread(tag, &body);
                if !std::mem::take(&mut self.describe) {
                    return Ok(false);
                }
                let result = self.describe(client).await;
                failed = !report(client, result)?;
                continue;
            }
            if !failed {
                let result = self.on_message(client, tag, &body).await;
                if result.is_err() {
                    self.end(client).await;
                }
                failed = !report(client, result)?;
                if failed {
                    client.fail_block();
                }
            }
            if tag == b'S' {
                return Ok(true);
            }
        }
    }

    /// Whether a message is about another portal of the client's.
    fn is_of_another<C: Conversation<Twin = T>>(&self, client: &C, tag: u8, body: &[u8]) -> bool {
        let target = match tag {
            b'D' => frontend::describe(body),
            b'C' => frontend::close(body),
            b'E' => frontend::execute(body).map(|execute| Target::Portal(execute.portal)),
            _ => return false,
        };
        matches!(target, Ok(Target::Portal(name)) if name != self.name && client.has_portal(name))
    }

    /// Gives the connections back that an answer still has.
    async fn end<C: Conversation<Twin = T>>(&mut self, client: &mut C) {
        if let Some(answer) = self.answer.take() {
            answer.close(client).await;
        }
        if let Some(gathered) = self.gathered.take() {
            // Nothing is owed to the client.
            drop(gathered.close(client, Ok(())).await);
        }
    }

    /// What a block's portal has not handed on yet stays for the Executes of later groups.
    async fn stay<C: Conversation<Twin = T>>(&mut self, client: &mut C) {
        let gathered = self.gathered.take_if(|gathered| gathered.can_stay());
        if let Some(gathered) = gathered {
            let result = gathered.keep(client, self.wide).await;
            if result.is_err() {
                client.fail_block();
            }
        }
    }

    /// Hands on the next rows of an answer that is on a twin.
    async fn fetch_gathered<C: Conversation<Twin = T>>(
        &mut self,
        client: &mut C,
        gather: &Gather,
        describe: bool,
        max: u64,
    ) -> Result<(), Trouble> {
        if self.is_through {
            if describe {
                self.describe(client).await?;
            }
            complete(client, "SELECT 0");
            return Ok(());
        }
        let started = client.now();
        let keeps = gather::declares(self.wide) || (max > 0 && client.savepoints().is_some());
        let opened = match self.gathered.take() {
            Some(gathered) => Ok(gathered),
            None => Gathered::open(client, self.wide, gather, keeps).await,
        };
        let mut gathered = opened?;
        let max = u32::try_from(max).unwrap_or(u32::MAX);
        let result = gathered.hand_on(client, self.wide, describe, max).await;
        client.count_wide(RouteLabel::Gather, started, result.is_ok());
        if let Ok(true) = result {
            self.gathered = Some(gathered);
            return Ok(());
        }
        self.is_through = true;
        if result.is_ok() && gather::declares(self.wide) {
            return gathered.keep(client, self.wide).await;
        }
        gathered.close(client, result.map(drop)).await
    }

    /// Hands on the next rows of an answer.
    async fn fetch<C: Conversation<Twin = T>>(
        &mut self,
        client: &mut C,
        (shards, finish): (&ShardSet, &Arc<Finish>),
        describe: bool,
        max: u64,
    ) -> Result<(), Trouble> {
        if self.is_gathered
            && let Route::Concat(_, _, Some(gather)) = &self.wide.route
        {
            return self.fetch_gathered(client, gather, describe, max).await;
        }
        if self.is_through {
            if describe {
                client.out().extend_from_slice(&self.description);
            }
            complete(client, "SELECT 0");
            return Ok(());
        }
        let started = client.now();
        let opened = match self.answer.take() {
            Some(answer) => Ok(answer),
            None => Answer::open(client, self.wide, shards, finish).await,
        };
        let mut answer = match (opened, &self.wide.route) {
            (Err(Trouble::Unproven(_)), Route::Concat(_, _, Some(gather))) => {
                self.is_gathered = true;
                return self.fetch_gathered(client, gather, describe, max).await;
            }
            (opened, _) => opened?,
        };
        let result = answer.run(client, self.wide, describe, max).await;
        if let (Err(Trouble::Unproven(_)), Route::Concat(_, _, Some(gather))) =
            (&result, &self.wide.route)
        {
            answer.close(client).await;
            self.is_gathered = true;
            return self.fetch_gathered(client, gather, describe, max).await;
        }
        client.count_wide(RouteLabel::Multi, started, result.is_ok());
        if let Ok(false) = result {
            self.answer = Some(answer);
        } else {
            self.description = answer.description().unwrap_or_default().to_vec();
            answer.close(client).await;
            self.is_through = true;
        }
        result.map(drop)
    }

    /// The shards and the way of an answer that is read row by row.
    fn read_by_rows(&self, max: u64) -> Option<(&'a ShardSet, &'a Arc<Finish>)> {
        let wide: &'a Wide = self.wide;
        let is_select = wide.effect == Effect::None;
        match &wide.route {
            Route::Concat(shards, finish, _)
                if is_select && (max > 0 || self.executed || !finish.is_plain()) =>
            {
                Some((shards, finish))
            }
            Route::Concat(..)
            | Route::Session
            | Route::Anywhere
            | Route::AnyShard
            | Route::Single(_)
            | Route::Broadcast { .. }
            | Route::CopySplit(_)
            | Route::Gather(_)
            | Route::InsertGathered(..)
            | Route::Each(_)
            | Route::Move(..)
            | Route::InsertSplit(_) => None,
        }
    }

    async fn on_message<C: Conversation<Twin = T>>(
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
                let max = self.check_execute(body)?;
                let describe = std::mem::take(&mut self.describe);
                let wide = self.wide;
                let by_rows = self.read_by_rows(max);
                self.executed = true;
                if let Route::Gather(gather) = &wide.route
                    && wide.effect == Effect::None
                {
                    return self.fetch_gathered(client, gather, describe, max).await;
                }
                if let Some(read) = by_rows {
                    return self.fetch(client, read, describe, max).await;
                }
                if describe && self.has_no_rows() {
                    client.reply(backend::no_data);
                }
                self.is_through = true;
                carry_out(client, wide, describe).await
            }
            b'C' => {
                match frontend::close(body).map_err(Fault::from)? {
                    Target::Portal(name) if name == self.name => {
                        self.is_closed = true;
                        self.end(client).await;
                    }
                    Target::Portal(_) => {}
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

    /// How many rows an Execute asks for at most; 0 is no limit.
    fn check_execute(&self, body: &[u8]) -> Result<u64, Fault> {
        let Execute { portal, max_rows } = frontend::execute(body)?;
        self.check_name(portal)?;
        let max = u64::from(max_rows);
        let is_gathered =
            matches!(self.wide.route, Route::Gather(_)) && self.wide.effect == Effect::None;
        let by_rows = self.read_by_rows(max).is_some() || is_gathered;
        if self.executed && !by_rows {
            return Err(one_at_a_time());
        }
        let has_rows = matches!(
            self.wide.route,
            Route::Concat(..) | Route::InsertSplit(_) | Route::Each(_) | Route::Move(..)
        );
        if has_rows && max != 0 && !by_rows {
            return Err(row_limit());
        }
        Ok(max)
    }

    fn has_no_rows(&self) -> bool {
        matches!(
            self.wide.route,
            Route::CopySplit(_) | Route::InsertGathered(..)
        ) || matches!(self.wide.effect, Effect::CopyIn { .. })
    }

    /// Has one shard describe the rows, which are alike on all.
    async fn describe<C: Conversation<Twin = T>>(&self, client: &mut C) -> Result<(), Trouble> {
        if self.has_no_rows() {
            client.reply(backend::no_data);
            return Ok(());
        }
        if let Some(description) = self.answer.as_ref().and_then(Answer::description) {
            client.out().extend_from_slice(description);
            return Ok(());
        }
        if self.is_through && !self.description.is_empty() {
            client.out().extend_from_slice(&self.description);
            return Ok(());
        }
        let first = match &self.wide.route {
            Route::Concat(shards, ..) | Route::Each(shards) | Route::Move(shards, _) => {
                shards.iter().next()
            }
            Route::InsertSplit(shares) => shares.first().map(|share| share.shard),
            Route::Session
            | Route::Anywhere
            | Route::AnyShard
            | Route::Single(_)
            | Route::Broadcast { .. }
            | Route::CopySplit(_)
            | Route::InsertGathered(..)
            | Route::Gather(_) => None,
        };
        let shard = first.unwrap_or_else(|| client.topology().home());
        let mut one = ShardSet::default();
        one.insert(shard);
        let mut members = open_parts(client, &one).await?;
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
    .detail("Before the Sync nothing but the statement itself is described, executed and closed.")
    .hint("Send it outside the pipeline, or sync after it.")
}

fn row_limit() -> Fault {
    Fault::error(
        SqlState::FEATURE_NOT_SUPPORTED,
        "a row limit on such a statement over several shards is not supported",
    )
    .hint("Fetch all rows, or add the key to the statement so that one shard answers it.")
}
