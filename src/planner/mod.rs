//! Statement and values in, route or refusal out.

pub mod plan;
