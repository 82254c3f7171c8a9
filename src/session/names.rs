//! What the names in a text of several statements mean: `SET search_path TO b; SELECT … FROM t` reads
//! `b.t`, while the text as a whole was planned under the path of before.

use std::rc::Rc;

use crate::error::{Fault, SqlState};
use crate::planner::plan::{Argument, Effect, Script, Statement};
use crate::server::settings::Settings;

use super::Session;
use super::replies::as_set_writes;

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
                self.settings = Some(now.with(&name, &as_set_writes(&name, value)));
            }
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
    /// The plan of one statement of a text under the names of its moment; `None` where the text's own
    /// plan holds.
    ///
    /// # Errors
    /// 0A000 when what the names mean cannot be told.
    pub(crate) fn planned_under(
        &mut self,
        names: &Names,
        statement: &Statement,
        text: &[u8],
    ) -> Result<Option<Script>, Fault> {
        if !statement.has_tables || self.pools.len() < 2 {
            return Ok(None);
        }
        match &names.settings {
            Some(settings) if self.names_mean_the_same(settings) => Ok(None),
            Some(settings) => Ok(Some(self.plan_under_settings(text, settings))),
            None => Err(Fault::error(
                SqlState::FEATURE_NOT_SUPPORTED,
                "it cannot be told which tables a statement means, behind one in the same query that may change search_path",
            )
            .hint("Send the statements one by one.")),
        }
    }
}
