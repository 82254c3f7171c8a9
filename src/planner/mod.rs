//! Statement and values in, route or refusal out.

mod array;
mod concat;
pub mod context;
mod data;
mod draft;
mod effects;
mod explain;
mod facts;
mod functions;
mod hint;
mod ids;
mod literals;
pub mod memo;
pub mod plan;
mod predicate;
pub mod refuse;
mod route;
mod scope;
mod script;
mod survey;
mod tables;
mod unlike;
mod utility;
mod writes;

pub use context::Context;
pub use effects::{FUNCTION, hides_settings, makes_relations};
pub use explain::{RouteReport, explain};
pub use route::{buckets, hinted, key_fault, route};
pub use script::script;
