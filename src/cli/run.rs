//! `permgate run`: the gateway in the foreground, with its log on stderr.

use std::io::{self, IsTerminal, Write};

use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use tracing::{Level, Metadata, Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter, reload::Handle};

use super::{
    Global,
    failure::{Failure, chain, colored, print_stderr, use_color},
    hint::quoted,
    owner,
};
use crate::{
    app::{self, Outcome, Running, Signals, StartError},
    config::Config,
};

/// Overrides `log.level`, in the syntax of tracing's `EnvFilter`.
const LOG_VARIABLE: &str = "PERMGATE_LOG";

pub(super) fn run(global: &Global) -> Result<(), Failure> {
    let config = Config::load(global.config()).map_err(|errors| Failure::usage(errors.to_string()))?;
    log_to_stderr(&config.log.level);
    disable_core_dumps();
    let store = config.store.path.clone();
    let running = app::start(config, Signals::Handled).map_err(|error| match error {
        StartError::Config(errors) => Failure::usage(errors.to_string()),
        error @ StartError::Store(_) => owner::with_owner_advice(Failure::failed(chain(&error)), &store),
        other => Failure::failed(chain(&other)),
    })?;
    if std::io::stderr().is_terminal() {
        greet(global, &running);
    } else {
        log(&running);
    }
    match running.wait() {
        Outcome::Drained => {
            if std::io::stderr().is_terminal() {
                print_stderr("stopped");
            } else {
                tracing::info!("stopped");
            }
            Ok(())
        }
        Outcome::Failed(why) => Err(Failure::failed(why)),
    }
}

/// Tells the user at a terminal what to do next.
fn greet(global: &Global, running: &Running) {
    let list =
        |places: &[app::LocalAddr]| places.iter().map(app::LocalAddr::url).collect::<Vec<_>>().join("  ");
    print_stderr(&format!("{}; press Ctrl-C to stop", colored("ready", "1;32", &std::io::stderr())));
    print_stderr(&format!("  services   {}", list(running.proxy())));
    print_stderr(&format!("  admin      {}", list(running.admin())));
    if !running.has_administrator() {
        let file = quoted(&global.config().display().to_string());
        let file = if file == "gateway.toml" { String::new() } else { format!("-c {file} ") };
        print_stderr("There is no administrator yet. Create one in another terminal:");
        print_stderr(&format!("  permgate {file}user create NAME --administrator"));
    }
}

fn log(running: &Running) {
    for (kind, places) in [("proxy", running.proxy()), ("admin", running.admin())] {
        for place in places {
            tracing::info!("{kind} listener on {place}");
        }
    }
    if !running.has_administrator() {
        tracing::warn!(
            "there is no administrator: create one with `permgate user create NAME --administrator`"
        );
    }
    tracing::info!("ready");
}

/// Disables core dumps and inspection by other processes of the user: memory holds tokens and keys.
fn disable_core_dumps() {
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "core dumps stay possible: they would hold tokens and keys");
    }
}

/// Logs text to a terminal, and JSON lines to anything else.
fn log_to_stderr(level: &str) {
    let variable = std::env::var(LOG_VARIABLE).ok().filter(|text| !text.trim().is_empty());
    let overriding = variable.as_deref().and_then(filter);
    let has_override = overriding.is_some();
    let filter = overriding.unwrap_or_else(|| EnvFilter::new(level));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        let lines = lines.with_ansi(use_color(&std::io::stderr())).with_target(false).without_time();
        let lines = lines.with_filter_reloading();
        change_on_reload(lines.reload_handle(), has_override);
        lines.init();
    } else {
        let lines = lines.with_writer(Stderr { journal: is_journal() });
        let lines = lines.json().flatten_event(true).with_target(false).with_filter_reloading();
        change_on_reload(lines.reload_handle(), has_override);
        lines.init();
    }
    if let Some(text) = variable.filter(|_| !has_override) {
        tracing::warn!(
            "{LOG_VARIABLE} is {text:?}, which is not a level such as \"debug\": log.level applies"
        );
    }
}

/// Whether stderr is systemd's journal, as systemd.exec(5) defines it.
fn is_journal() -> bool {
    let stderr = rustix::fs::fstat(io::stderr());
    let named = std::env::var("JOURNAL_STREAM");
    stderr.is_ok_and(|file| named.is_ok_and(|name| name == format!("{}:{}", file.st_dev, file.st_ino)))
}

/// Standard error. In the journal every line begins with its priority, as in sd-daemon(3): without it, errors
/// could be told from everything else only by reading it.
struct Stderr {
    journal: bool,
}

/// Puts the priority in front of a line.
struct PrefixedStderr(&'static str);

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = PrefixedStderr;

    fn make_writer(&'a self) -> PrefixedStderr {
        PrefixedStderr("")
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> PrefixedStderr {
        PrefixedStderr(match *event.level() {
            _ if !self.journal => "",
            Level::ERROR => "<3>",
            Level::WARN => "<4>",
            Level::INFO => "<6>",
            Level::DEBUG | Level::TRACE => "<7>",
        })
    }
}

impl Write for PrefixedStderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // Both at once, because other threads write, too.
        io::stderr().write_all(&[self.0.as_bytes(), line].concat())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The filter of a level or of `EnvFilter`'s directives. A word that is not a level would be the name of a
/// module, and would silence everything else.
fn filter(text: &str) -> Option<EnvFilter> {
    let parts: Vec<&str> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    let is_level = |part: &&str| part.parse::<LevelFilter>().is_ok();
    let is_sound = |part: &&str| part.contains(['=', ':', '[']) || is_level(part);
    // Beside a level for everything, it only adds a module.
    if parts.is_empty() || !parts.iter().any(is_level) && !parts.iter().all(is_sound) {
        return None;
    }
    EnvFilter::try_new(parts.join(",")).ok()
}

/// Has reloads change the level, unless the variable has set it.
fn change_on_reload<S: Subscriber + 'static>(filter: Handle<EnvFilter, S>, has_override: bool) {
    if !has_override {
        app::log_level::on_reload(move |level| {
            if let Err(error) = filter.reload(EnvFilter::new(level)) {
                tracing::warn!(%error, "the level of the log stays as it was");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::dumpable_behavior;

    use super::*;

    #[test]
    fn a_mistyped_level_does_not_silence_the_log() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(filter(text).map(|filter| filter.to_string()).as_deref(), expected, "{text}");
        };
        check("debug", Some("debug"));
        check("WARN", Some("warn"));
        check("off", Some("off"));
        check("permgate::store=debug,warn", Some("permgate::store=debug,warn"));
        check("debug ", Some("debug"));
        check("permgate::store=debug, warn,", Some("permgate::store=debug,warn"));
        assert!(filter("info,hyper").is_some(), "a module beside a level");
        check("debug info", None);
        check("debugg,permgate=info", None);
        check("de-bug", None);
        check("warning", None);
        check("verbose", None);
        check("permgate=loud", None);
    }

    #[test]
    fn core_dumps_are_off() {
        disable_core_dumps();
        assert_eq!(dumpable_behavior().ok(), Some(DumpableBehavior::NotDumpable));
    }
}
