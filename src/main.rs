//! The binary: allocator, log lines on stderr, exit code. Everything else is in the library.

use std::process::ExitCode;

/// Freed memory goes back to the thread that asked for it, so workers share no allocator lock.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // A huge page for every region that is touched makes an idle gateway four times as large, and the
    // look-ups of a million tokens hardly faster. Where the kernel knows no such pages, nothing is lost.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    permgate::cli::main()
}
