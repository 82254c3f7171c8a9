//! The console: who may enter it, and what each command does to the herd.
//!
//! It knows no protocol; [`crate::admin::conversation`] speaks it. Names and states are checked here, so
//! that every refusal says the same thing whatever implements [`Herd`].

use std::borrow::Cow;
use std::sync::Arc;

use crate::admin::answer::{Answer, Column};
use crate::admin::command::{Act, Command, parse};
use crate::admin::conversation::Talk;
use crate::admin::environment;
use crate::admin::herd::Herd;
use crate::admin::show::View;
use crate::config::Config;
use crate::error::{Fault, SqlState};
use crate::metrics::view::{Detail, Snapshot, State};
use crate::session::console::{Console as SessionConsole, Conversation, NAMES, Rights};

/// The console over a running herd. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Console {
    herd: Arc<dyn Herd>,
}

impl Console {
    /// A console over this herd.
    pub fn new(herd: Arc<dyn Herd>) -> Console {
        Console { herd }
    }

    /// What a user may do by the config, or why they may not enter.
    pub fn rights_of(config: &Config, user: &str) -> Result<Rights, Fault> {
        let is_in = |list: &[String]| list.iter().any(|name| name == user);
        if is_in(&config.admin_users) {
            Ok(Rights::Admin)
        } else if is_in(&config.stats_users) {
            Ok(Rights::Stats)
        } else {
            Err(Fault::fatal(
                SqlState::INSUFFICIENT_PRIVILEGE,
                format!("user \"{user}\" may not enter the console"),
            )
            .detail("The console is for admin_users and stats_users.")
            .hint("Add the user to admin_users or stats_users in the config, or connect to one of your databases."))
        }
    }

    /// Reads and runs every command of a text; stops at the first that fails.
    ///
    /// # Cancel safety
    /// As [`Console::run`].
    pub async fn query(
        &self,
        text: &str,
        user: &str,
        rights: Rights,
    ) -> Result<Vec<Answer>, Fault> {
        let mut answers = Vec::new();
        for command in parse(text, user)? {
            answers.push(self.run(&command, rights).await?);
        }
        Ok(answers)
    }

    /// The columns a command will answer with; empty if it returns no rows.
    pub fn columns(command: &Command) -> Cow<'static, [Column]> {
        match command {
            Command::Show(show) => Cow::Borrowed(show.columns),
            Command::Constant(answer) => answer.columns.clone(),
            Command::Block(_) | Command::Deallocate(..) | Command::Act(_) => Cow::Borrowed(&[]),
        }
    }

    /// Runs one command. What only changes a conversation (BEGIN, DEALLOCATE) is answered with its
    /// tag alone.
    ///
    /// # Cancel safety
    /// Safe for SHOW. Dropped while PAUSE waits, the pause stays; see [`Herd`].
    pub async fn run(&self, command: &Command, rights: Rights) -> Result<Answer, Fault> {
        match command {
            Command::Constant(answer) => Ok(answer.clone()),
            Command::Block(_) => Ok(Answer::done("BEGIN")),
            Command::Deallocate(_, tag) => Ok(Answer::done(tag)),
            Command::Show(show) => {
                let snapshot = match show.needs {
                    Some(detail) => self.herd.snapshot(detail).await?,
                    None => Snapshot::default(),
                };
                let config = self.herd.config();
                let view = View {
                    config: &config,
                    snapshot: &snapshot,
                };
                Ok(Answer {
                    columns: Cow::Borrowed(show.columns),
                    rows: (show.rows)(&view),
                    tag: "SHOW",
                    notices: Vec::new(),
                })
            }
            Command::Act(act) => {
                if rights < Rights::Admin {
                    return Err(denied(act.word()));
                }
                tracing::info!(command = act.word(), ?act, "console command");
                Ok(Answer {
                    notices: self.act(act).await?,
                    ..Answer::done(act.word())
                })
            }
        }
    }

    /// Carries a command out; returns what its client is to be told of it.
    async fn act(&self, act: &Act) -> Result<Vec<Fault>, Fault> {
        let herd = &self.herd;
        let done = match act {
            Act::Reload => return herd.reload().await,
            Act::Pause(name) => {
                self.must_run("PAUSE").await?;
                self.check(name.as_deref(), act.word()).await?;
                herd.pause(name.as_deref()).await
            }
            Act::Resume(name) => {
                self.must_be_paused(name.as_deref()).await?;
                herd.resume(name.as_deref()).await
            }
            Act::Reconnect(name) => {
                self.check(name.as_deref(), act.word()).await?;
                herd.reconnect(name.as_deref()).await
            }
            Act::Kill(name) => {
                self.must_run("KILL").await?;
                self.check(name.as_deref(), act.word()).await?;
                herd.kill(name.as_deref()).await
            }
            Act::KillClient(id) => {
                if herd.kill_client(*id).await? {
                    return Ok(Vec::new());
                }
                Err(Fault::error(
                    SqlState::INVALID_PARAMETER_VALUE,
                    format!("there is no client {id}"),
                )
                .hint("Take the id from SHOW CLIENTS; the client may have gone since."))
            }
            Act::Disable(name) => {
                self.check(Some(name), act.word()).await?;
                herd.disable(name).await
            }
            Act::Enable(name) => {
                self.check(Some(name), act.word()).await?;
                herd.enable(name).await
            }
            Act::WaitClose(name) => {
                self.check(name.as_deref(), act.word()).await?;
                herd.wait_close(name.as_deref()).await
            }
            Act::Shutdown(how) => herd.shutdown(*how).await,
            Act::Purge(what) => herd.purge(what).await,
            Act::Set { key, value } => self.set(key, value).await,
            Act::Resolve(name) => {
                self.check(name.as_deref(), act.word()).await?;
                herd.resolve(name.as_deref()).await
            }
            Act::ResolveOne { gid, commits } => herd.resolve_one(gid, *commits).await,
        };
        done.map(|()| Vec::new())
    }

    async fn set(&self, key: &str, value: &str) -> Result<(), Fault> {
        let config = self.herd.config();
        let fault = |message: String| Fault::error(SqlState::INVALID_PARAMETER_VALUE, message);
        match config.settings.iter().find(|setting| setting.key == key) {
            None => {
                Err(fault(format!("there is no setting \"{key}\"")).hint("SHOW CONFIG lists them."))
            }
            Some(setting) if !setting.reloadable => Err(fault(format!(
                "setting \"{key}\" cannot be changed while running"
            ))
            .hint("Change it in the config file and restart.")),
            Some(_) => self.herd.set(key, value).await,
        }
    }

    /// Ends a PAUSE whose wait was canceled, as PgBouncer does.
    pub(crate) async fn undo_pause(&self, name: Option<&str>) -> Result<(), Fault> {
        self.herd.resume(name).await
    }

    async fn must_run(&self, word: &str) -> Result<(), Fault> {
        let what = match self.herd.snapshot(Detail::Pools).await?.state {
            State::Active => return Ok(()),
            State::Paused => "paused already",
            State::ShuttingDown => "shutting down",
        };
        Err(
            Fault::error(SqlState::CANNOT_CONNECT_NOW, format!("the proxy is {what}"))
                .hint(format!("RESUME first, if you want to {word} part of it.")),
        )
    }

    async fn must_be_paused(&self, name: Option<&str>) -> Result<(), Fault> {
        self.check(name, "RESUME").await?;
        let snapshot = self.herd.snapshot(Detail::Pools).await?;
        let fault = |message| {
            Fault::error(SqlState::INVALID_PARAMETER_VALUE, message)
                .hint("SHOW STATE and SHOW DATABASES say what is.")
        };
        let mut databases = snapshot.databases.iter();
        match name {
            _ if snapshot.state == State::ShuttingDown => {
                Err(fault("the proxy is shutting down".to_owned()))
            }
            None if snapshot.state == State::Paused || databases.any(|row| row.paused) => Ok(()),
            None => Err(fault("the proxy is not paused".to_owned())),
            Some(name) if databases.any(|row| row.name == name && row.paused) => Ok(()),
            Some(name) => Err(fault(format!("database \"{name}\" is not paused"))),
        }
    }

    /// Makes sure that a database exists and is not the console.
    async fn check(&self, name: Option<&str>, word: &str) -> Result<(), Fault> {
        let Some(name) = name else {
            return Ok(());
        };
        if NAMES.contains(&name) {
            return Err(Fault::error(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("{word} does not apply to the console"),
            )
            .hint("Name one of your databases."));
        }
        if self.herd.config().databases.contains_key(name) {
            return Ok(());
        }
        // A database reached through "*" exists once somebody has used it.
        let snapshot = self.herd.snapshot(Detail::Pools).await?;
        if snapshot.databases.iter().any(|row| row.name == name) {
            return Ok(());
        }
        Err(Fault::error(SqlState::UNKNOWN_DATABASE, format!("database \"{name}\" does not exist"))
            .hint("SHOW DATABASES lists them; put the name in double quotes if it has upper case letters."))
    }
}

impl SessionConsole for Console {
    fn rights(&self, user: &str) -> Result<Rights, Fault> {
        Console::rights_of(&self.herd.config(), user)
    }

    fn parameters(&self) -> Vec<(&'static str, String)> {
        environment::parameters()
    }

    fn open(&self, user: &str, rights: Rights) -> Box<dyn Conversation> {
        Box::new(Talk::new(self.clone(), user, rights))
    }
}

fn denied(word: &str) -> Fault {
    Fault::error(
        SqlState::INSUFFICIENT_PRIVILEGE,
        format!("permission denied for {word}"),
    )
    .detail("Users in stats_users may only SHOW.")
    .hint("Log in as one of admin_users.")
}
