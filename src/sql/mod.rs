//! Reads SQL: tokens, statements, literals. The only place that names sqlparser.

pub mod cursor;
pub mod mask;
pub mod scan;
pub mod split;
