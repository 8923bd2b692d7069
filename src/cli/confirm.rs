//! Confirmation before a change that cannot be undone.

use std::io::{self, BufRead, IsTerminal, Write};

use super::failure::Failure;

/// Asks on a terminal; without one, `--yes` is required.
pub(super) fn confirm(question: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::usage(format!("{question} There is no terminal to ask on: confirm with --yes")));
    }
    match ask(&format!("{question} [y/N] "))?.to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::failed("nothing was changed")),
    }
}

/// Reads one line from the terminal, trimmed. End of input (Ctrl-D) is an error.
pub(super) fn ask(question: &str) -> Result<String, Failure> {
    let mut stderr = io::stderr();
    write!(stderr, "{question}")?;
    stderr.flush()?;
    let mut line = String::new();
    if io::stdin().lock().read_line(&mut line)? == 0 {
        writeln!(stderr)?;
        return Err(Failure::failed("nothing was changed"));
    }
    Ok(line.trim().to_owned())
}
