//! The beginning of a session, and what changes in it when the configuration does.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use crate::config::{PoolMode, User};
use crate::error::{Fault, SqlState};
use crate::net::Stream;
use crate::server::pool::Pool;
use crate::server::settings::Settings;
use crate::wire::backend;

use super::auth::Identity;
use super::client::Client;
use super::engine::{Database, Engine, Greeting};
use super::{Passing, Session, Stop};

impl Session {
    /// A session of a client that has been greeted.
    #[expect(
        clippy::too_many_arguments,
        reason = "made in one place, from what the login found"
    )]
    pub(crate) fn start(
        engine: Rc<Engine>,
        client: Rc<Client>,
        stream: Stream,
        database: Rc<Database>,
        pools: Rc<[Rc<Pool>]>,
        pool_mode: PoolMode,
        settings: Rc<Settings>,
        greeting: Rc<Greeting>,
        identity: Identity,
        user: Option<&User>,
    ) -> Box<Session> {
        Box::new(Session {
            engine,
            client,
            stream,
            out: Vec::new(),
            client_is_full: false,
            input: Vec::new(),
            held_need: None,
            passing: None,
            copy_left: 0,
            forwarding: false,
            identity,
            database,
            pools,
            pool_mode,
            startup_settings: Rc::clone(&settings),
            settings,
            greeting,
            settings_change: false,
            names_unsure: false,
            settings_before: None,
            block: None,
            lease: None,
            joined: None,
            goes_alone: false,
            ran_ddl: false,
            granted: None,
            corked: false,
            timed: None,
            parked: Vec::new(),
            steps: 0,
            statements: HashMap::default(),
            sql_prepared: Vec::new(),
            executes: Vec::new(),
            deallocating: Vec::new(),
            oids: super::oids::Oids::default(),
            temporary: Vec::new(),
            dropping: None,
            channels: super::listen::Channels::default(),
            unnamed: None,
            portals: Vec::new(),
            pending: Vec::new(),
            tentative: VecDeque::new(),
            skipping: false,
            answered: false,
            series: None,
            executed: false,
            may_open_block: false,
            lost: None,
            copy_in: false,
            departed: false,
            ends: false,
            rolled_back: false,
            pinned: None,
            facts: None,
            identity_hints: user.is_some_and(|user| user.comment_hints),
            tenant: user.and_then(|user| user.tenant.as_deref()).map(Rc::from),
            tenant_unsure: false,
            account: super::counting::Account::default(),
            refusing: None,
            last_ids: super::generate::LastIds::default(),
            spare_numbers: Vec::new(),
            caching: super::cached::Caching::default(),
            answers: super::ask::Answers::default(),
            own_settings: Vec::new(),
        })
    }

    /// A reload took place: the database and the pools are those of the new configuration from here on.
    pub(crate) fn follow_reload(&mut self) {
        let snapshot = self.engine.snapshot.borrow().clone();
        let engine = Rc::clone(&self.engine);
        let found = engine
            .database(&snapshot, &self.client.database)
            .and_then(|database| {
                Ok((
                    engine.pools(&database, &snapshot, &self.identity)?,
                    database,
                ))
            });
        match found {
            Ok((pools, database)) => {
                self.pool_mode = database.pool_mode(snapshot.config.users.get(&self.identity.user));
                self.database = database;
                self.pools = pools;
                let user = snapshot.config.users.get(&self.identity.user);
                self.identity_hints = user.is_some_and(|user| user.comment_hints);
                self.follow_tenant(user.and_then(|user| user.tenant.as_deref()));
                self.parked.clear();
            }
            Err(fault) => self.client.kill(
                Fault::fatal(
                    SqlState::ADMIN_SHUTDOWN,
                    "the database was removed from the configuration",
                )
                .detail(format!("{}.", fault.message))
                .hint("Connect to a database that the configuration names."),
            ),
        }
    }

    /// A long message is refused: its bytes are dropped as they come.
    pub(crate) fn refuse_long(&mut self, tag: u8, left: usize, fault: &Fault) {
        self.passing = (left > 0).then_some(Passing {
            left,
            to_server: false,
        });
        if matches!(tag, b'Q' | b'F') {
            self.reply_fault(fault);
            self.reply_ready();
        } else {
            self.fail_group(fault);
        }
    }

    /// What was waited for failed, and the message it was for is not whole: it is dropped as it comes.
    pub(crate) fn refuse_unfinished(&mut self, fault: &Fault) {
        let Ok(crate::wire::frame::Split::Part { tag, total, .. }) =
            crate::wire::frame::split(&self.input, u32::MAX)
        else {
            self.out.clear();
            backend::fault(&mut self.out, fault);
            self.client.kill(fault.clone().into_fatal());
            return;
        };
        let left = total.saturating_sub(self.input.len());
        self.input.clear();
        self.refuse_long(tag, left, fault);
    }
}

/// What to answer when a Query is too long to be analysed.
pub(crate) fn too_long(what: &str) -> Stop {
    Stop::Fault(
        Fault::error(
            SqlState::PROGRAM_LIMIT,
            format!("{what} is too long to be analysed"),
        )
        .hint("Send it in parts, use COPY, or raise max_statement_size."),
    )
}
