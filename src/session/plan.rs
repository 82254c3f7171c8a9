//! From a text to its plan: the memo first, the planner when it must.

use std::ops::Range;
use std::rc::Rc;

use crate::planner;
use crate::planner::plan::Script;
use crate::server::statements::Prepared;
use crate::wire::frontend::Parse;

use super::Session;
use super::engine::Database;

impl Database {
    /// The plan of a simple query's text, and where its literals stand.
    pub(crate) fn plan_simple(
        &self,
        text: &[u8],
        _session: &Session,
    ) -> (Rc<Script>, Vec<Range<usize>>) {
        (Rc::new(planner::script(text)), Vec::new())
    }

    /// The statement that a Parse brings, known or new.
    pub(crate) fn plan_extended(&self, parse: &Parse<'_>, _session: &Session) -> Rc<Prepared> {
        self.forget_outdated();
        if let Some(known) = self.statements.borrow().get(parse.after_name) {
            return Rc::clone(known);
        }
        let script = Rc::new(planner::script(parse.query));
        self.statements.borrow_mut().insert(
            parse.after_name,
            parse.query.len(),
            script,
            &[],
            self.limits.plan_cache_size,
        )
    }

    /// Plans made under another schema are not used again.
    pub(crate) fn forget_outdated(&self) {
        let epoch = self.epoch();
        if self.planned_epoch.replace(epoch) != epoch {
            self.statements.borrow_mut().clear();
            *self.memo.borrow_mut() = planner::memo::Memo::default();
        }
    }
}
