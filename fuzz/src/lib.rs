//! What each fuzz target does with its bytes: one function a file, which panics at a finding.
//!
//! libFuzzer calls them from `fuzz_targets/`, `tests/fuzz.rs` with the seeds and mutations of them.

pub mod copy;
pub mod frame;
pub mod placement;
pub mod scram;
pub mod session;
pub mod startup;
pub mod statement;

/// A target's function.
pub type Target = fn(&[u8]);

/// Every target by name.
pub const TARGETS: [(&str, Target); 7] = [
    ("copy", copy::run),
    ("frame", frame::run),
    ("placement", placement::run),
    ("scram", scram::run),
    ("session", session::run),
    ("startup", startup::run),
    ("statement", statement::run),
];

/// Cuts `data` into chunks whose sizes come from `seed`: mostly small ones.
pub fn chop(data: &[u8], seed: u8) -> Vec<&[u8]> {
    let mut state = u32::from(seed);
    let mut rest = data;
    let mut chunks = Vec::new();
    while !rest.is_empty() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let size = match state >> 29 {
            0 | 1 => 1,
            2..=5 => usize::try_from(state >> 8 & 15).expect("small") + 1,
            _ => usize::try_from(state >> 8 & 255).expect("small") + 1,
        };
        let (chunk, after) = rest.split_at(size.min(rest.len()));
        chunks.push(chunk);
        rest = after;
    }
    chunks
}
