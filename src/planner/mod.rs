//! Statement and values in, route or refusal out.

mod array;
pub mod cache;
mod calls;
mod concat;
pub mod context;
mod data;
mod draft;
mod effects;
mod explain;
mod facts;
mod finish;
mod functions;
pub mod gather;
mod hint;
mod ids;
mod insert;
mod literals;
mod lookups;
pub mod memo;
mod outputs;
pub mod partial;
pub mod plan;
mod predicate;
pub mod refuse;
mod route;
mod scope;
mod script;
mod sources;
pub mod stored;
mod survey;
mod tables;
pub mod tally;
pub mod tenant;
mod unlike;
mod utility;
mod whole;
mod writes;

pub use calls::misfits;
pub use context::{Context, lookup_type};
pub use effects::{
    FUNCTION, hides_settings, makes_relations, makes_unseen, sets_unseen, unpreparable,
};
pub use explain::{RouteReport, explain};
pub use route::{buckets, entries, hinted, key_fault, route, single};
pub use script::script;
pub use utility::cursors::cursor_over_several;
pub use utility::explain::{Explanation, explanation};
