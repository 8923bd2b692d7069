//! The binary: allocator, log lines on stderr, exit code. Everything else is in the library.

use std::process::ExitCode;

/// Freed memory goes back to the thread that asked for it, so workers share no allocator lock.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    permgate::cli::main()
}
