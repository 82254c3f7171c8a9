//! A statement's plan in the making.

use std::ops::Range;
use std::sync::Arc;

use crate::error::Fault;
use crate::planner::cache::Verdict;
use crate::planner::plan::{Access, Confined, Effect, Statement};
use crate::planner::refuse;

/// What planning one statement gives, before it is put into a script.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own; no two of them make a state"
)]
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub verb: &'static str,
    pub effect: Effect,
    pub access: Access,
    pub writes: bool,
    pub repeatable: bool,
    pub has_tables: bool,
    pub no_block: bool,
    pub block_only: bool,
    /// Whether values of literals were looked at.
    pub exact: bool,
    /// As of [`Statement`].
    pub confined: Option<Arc<[Confined]>>,
    /// As of [`Statement`].
    pub cache: Option<Arc<Verdict>>,
}

impl Draft {
    /// A statement that the session answers or notes, and that writes nothing.
    pub(super) fn session(verb: &'static str, effect: Effect) -> Draft {
        Draft {
            verb,
            effect,
            access: Access::Session,
            writes: false,
            repeatable: false,
            has_tables: false,
            no_block: false,
            block_only: false,
            exact: true,
            confined: None,
            cache: None,
        }
    }

    /// The same, run by a server.
    pub(super) fn server(verb: &'static str, effect: Effect, access: Access) -> Draft {
        Draft {
            access,
            ..Draft::session(verb, effect)
        }
    }

    /// One that may write, to tables of the database.
    pub(super) fn writing(verb: &'static str, effect: Effect, access: Access) -> Draft {
        Draft {
            writes: true,
            has_tables: true,
            ..Draft::server(verb, effect, access)
        }
    }

    /// A statement about the session that is not understood to its end: it has no effect here, and
    /// the server that the block is on (else home) says what is wrong with it.
    pub(super) fn unread() -> Draft {
        Draft::writing("", Effect::None, Access::Bound)
    }

    /// A refusal.
    pub(super) fn refused(verb: &'static str, fault: Fault) -> Draft {
        Draft::writing(verb, Effect::None, Access::Refuse(Arc::new(fault)))
    }

    /// It runs on one shard, or is refused, rather than in parts.
    pub(super) fn keep_whole(&mut self) {
        if let Access::Keyed(keyed) = &mut self.access
            && (keyed.splits || keyed.each)
        {
            let keyed = Arc::make_mut(keyed);
            keyed.splits = false;
            keyed.each = false;
        }
        if let Access::Keyed(keyed) = &mut self.access
            && keyed
                .gather
                .as_ref()
                .is_some_and(|gather| gather.target.is_some())
        {
            Arc::make_mut(keyed).gather = None;
        }
        if let Access::Gather(gather) = &self.access
            && gather.target.is_some()
        {
            self.access = Access::Refuse(Arc::clone(&gather.otherwise));
        }
        if let Access::Generate(_) = &self.access {
            self.access = Access::Refuse(Arc::new(refuse::ids_within()));
        }
    }

    pub(super) fn into_statement(self, span: Range<usize>) -> Statement {
        Statement {
            span,
            verb: self.verb,
            effect: self.effect,
            access: self.access,
            writes: self.writes,
            repeatable: self.repeatable,
            has_tables: self.has_tables,
            no_block: self.no_block,
            block_only: self.block_only,
            confined: self.confined,
            cache: self.cache,
        }
    }
}
