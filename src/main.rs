//! The binary: allocator, log lines on stderr, exit code. Everything else is in the library.

use std::process::ExitCode;

/// Freed memory returns to the thread that allocated it, so workers share no allocator lock.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Huge pages make an idle gateway four times as large, and lookups in a million tokens hardly faster. On
    // a kernel without huge pages, the call fails without harm.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    permgate::cli::main()
}
