//! Statement and values in, route or refusal out.

pub mod memo;
pub mod plan;

use crate::error::Fault;
use crate::placement::topology::Topology;
use plan::{Access, Effect, Route, Script, Statement, Values};

/// Temporary stand-in: everything on the home shard.
pub fn script(text: &[u8]) -> Script {
    let trimmed = text.trim_ascii().strip_suffix(b";").unwrap_or(text.trim_ascii()).trim_ascii();
    let lower = trimmed.to_ascii_lowercase();
    let effect = match lower.as_slice() {
        b"begin" => Effect::Begin,
        b"commit" | b"end" => Effect::Commit { chain: false },
        b"rollback" => Effect::Rollback { chain: false },
        _ => Effect::None,
    };
    let verb = match effect {
        Effect::Begin => "BEGIN",
        _ => "SELECT",
    };
    let statements = if trimmed.is_empty() { vec![] } else {
        vec![Statement { span: 0..text.len(), verb, effect, access: Access::Home, writes: true, has_tables: true, no_block: false }]
    };
    Script { statements }
}

pub fn route(_statement: &Statement, topology: &Topology, _values: &dyn Values) -> Result<Route, Fault> {
    Ok(Route::Single(topology.home()))
}

pub fn key_fault(error: &crate::types::key::KeyError, table: &str) -> Fault {
    Fault::error(crate::error::SqlState::INVALID_PARAMETER_VALUE, format!("the key of table \"{table}\" {error}"))
}
