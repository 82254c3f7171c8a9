//! Reads SQL: tokens, statements, literals. The only place that names sqlparser.

pub mod clauses;
mod convert;
pub mod cursor;
pub mod fill;
pub mod hints;
pub mod mask;
pub mod parse;
pub mod quote;
pub mod rows;
pub mod scan;
pub mod split;
pub mod statement;
pub mod tail;
mod tokens;

pub use convert::{OBJECT_TYPES, with_stack};
pub use tokens::Numbering;
