//! The binary: allocator, log lines on stderr, exit code. Everything else is in the library.

use std::process::ExitCode;

/// Measured: the system's allocator costs a tenth more per request.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    permgate::cli::main()
}
