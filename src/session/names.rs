//! What the names in a text of several statements mean: `SET search_path TO b; SELECT … FROM t` reads
//! `b.t`, while the text as a whole was planned under the path of before.

use std::rc::Rc;

use crate::error::{Fault, SqlState};
use crate::execute::{End, Interrupted};
use crate::planner;
use crate::planner::plan::{Argument, Effect, Statement, Values};
use crate::server::hidden::ask_row;
use crate::server::pool::Lease;
use crate::server::settings::{Settings, of_whole};
use crate::wire::backend::Status;

use super::greeting::{NAMES, late};
use super::lease::Place;
use super::{Session, Stop};
use crate::planner::plan::TextValues;

/// The settings from which a statement's names are resolved, followed from statement to statement.
#[derive(Debug)]
pub(crate) struct Names {
    /// `None`: they cannot be told.
    settings: Option<Rc<Settings>>,
}

impl Names {
    /// As they are before the text.
    pub(crate) fn of(session: &Session) -> Names {
        Names {
            settings: Some(Rc::clone(session.settings_in_force())),
        }
    }

    /// A statement with this effect has run.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "no other effect sets anything"
    )]
    pub(crate) fn follow(&mut self, session: &Session, effect: &Effect) {
        let Some(now) = &self.settings else {
            return;
        };
        let startup = &session.startup_settings;
        match effect {
            Effect::Set { name, value, .. } => self.settings = Some(now.with(name, value)),
            Effect::Reset { name, .. } => self.settings = Some(now.without(name, startup)),
            Effect::SetConfig {
                name: Argument::Literal(name),
                value: Argument::Literal(value),
                ..
            } => {
                let name = name.to_ascii_lowercase();
                self.settings = Some(now.with(&name, &of_whole(&name, value)));
            }
            Effect::Pin(reason) if planner::hides_settings(reason) => self.settings = None,
            Effect::SetConfig { .. } | Effect::ResetAll | Effect::DiscardAll => {
                self.settings = None;
            }
            Effect::Commit { .. } | Effect::Rollback { .. } | Effect::RollbackTo(_)
                if session.may_change_settings(effect)
                    || !now.same(session.settings_in_force()) =>
            {
                self.settings = None;
            }
            _ => {}
        }
    }
}

impl Session {
    /// What runs now may set `search_path` unseen.
    pub(crate) fn doubt_names(&mut self, reason: &str) {
        if self.database.minds_names() && planner::hides_settings(reason) {
            self.names_unsure = true;
            if let Some(block) = &mut self.block {
                block.hides_names = true;
            }
        }
    }

    /// SET LOCAL outside a block: it holds until the Sync.
    pub(crate) fn doubt_names_of_group(&mut self, setting: &str) {
        let names = ["search_path", "role", "session_authorization"];
        let tenancy = self.database.topology.tenant();
        let of_tenant = tenancy.is_some_and(|tenancy| tenancy.setting.as_deref() == Some(setting));
        let counts = of_tenant || names.contains(&setting);
        if self.database.minds_names() && self.block.is_none() && counts {
            self.names_unsure = true;
        }
    }

    /// Before a text is read: what its names mean must be known, unless its transaction has failed.
    pub(crate) fn settle_names(&mut self) -> Result<(), Stop> {
        let Some(connection) = self.lease.as_ref().and_then(Lease::peek) else {
            self.names_unsure = false;
            return Ok(());
        };
        if connection.unsynced {
            // Within a group nothing can be asked.
            return Ok(());
        }
        self.wait_for_replies()?;
        if self.status() == Status::Failed {
            Ok(())
        } else {
            Err(Stop::Names)
        }
    }

    /// Asks the server what `search_path` is. A client whose server does not say is ended.
    ///
    /// # Cancel safety
    /// Not safe: the client must be closed.
    pub(crate) async fn ask_names(&mut self) -> Result<(), Interrupted> {
        let limit = self.database.limits.server_connect_timeout;
        let Some(connection) = self.connection() else {
            return Ok(());
        };
        let asked = tokio::time::timeout(limit, ask_row(connection, NAMES)).await;
        let row = asked
            .map_err(|_elapsed| Interrupted::End(End::Fault(Box::new(late()))))?
            .map_err(Interrupted::Fault)?;
        self.names_unsure = false;
        let Some(path) = row.first() else {
            return Ok(());
        };
        let path = of_whole("search_path", path);
        let settings = self.settings_in_force().with("search_path", &path);
        if self.names_mean_the_same(&settings) {
            return Ok(());
        }
        if let Some(block) = &mut self.block {
            block.local = Some(settings);
            return Ok(());
        }
        self.settings = settings;
        if let Some(connection) = self.connection() {
            connection.settings = connection.settings.with("search_path", &path);
        }
        Ok(())
    }

    /// Within a group a statement cannot be placed while what its names mean is not known.
    pub(crate) fn check_names(&self, statement: &Statement) -> Result<(), Fault> {
        if self.names_unsure && statement.has_tables {
            return Err(unknown_names());
        }
        Ok(())
    }

    /// Where one statement of a text runs, by the names of its moment.
    ///
    /// # Errors
    /// As of `place`; 0A000 when what the names mean cannot be told.
    pub(crate) fn place_under(
        &mut self,
        names: &Names,
        statement: &Statement,
        text: &[u8],
        values: &dyn Values,
    ) -> Result<Place, Fault> {
        if !statement.has_tables || !self.database.minds_names() {
            return self.place(statement, values);
        }
        let settings = names.settings.as_ref().ok_or_else(unknown_names)?;
        if self.names_mean_the_same(settings) {
            return self.place(statement, values);
        }
        // What EXECUTE names is planned by the names of now.
        if self.executes_kept(statement) {
            return Err(unknown_names());
        }
        let (script, tenant) = self.plan_under_settings(text, settings);
        let [statement] = script.statements.as_slice() else {
            return Err(unknown_names());
        };
        let values = TextValues {
            text,
            literals: &script.literals,
            is_utf8: self.is_utf8(),
        };
        if let Some(confined) = &statement.confined {
            self.check_confined(statement, confined, tenant.as_ref(), &values)?;
        }
        self.place_confined(statement, &values)
    }
}

/// What a statement is told of which it is not known which tables it means.
pub(crate) fn unknown_names() -> Fault {
    Fault::error(
        SqlState::FEATURE_NOT_SUPPORTED,
        "it cannot be told which tables a statement means, behind one that may change search_path",
    )
    .hint("Send the statements one by one, each with its own Sync.")
}
