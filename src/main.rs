//! The `pgherd` program: hands its arguments to the library and its outcome to the shell.

use std::process::ExitCode;

/// Keeps ten thousand idle clients small.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    pgherd::cli::main()
}
