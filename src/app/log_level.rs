//! The lowest severity of the log, `log.level`, which reloads change. The log belongs to the process: whoever
//! starts it says here how its level is set.

use std::sync::OnceLock;

type SetLevel = Box<dyn Fn(&str) + Send + Sync>;

static SET: OnceLock<SetLevel> = OnceLock::new();

/// Has reloads call this with the level. Only the first one counts.
pub fn on_reload(set: impl Fn(&str) + Send + Sync + 'static) {
    let _ = SET.set(Box::new(set));
}

/// Sets the level, unless nobody has said how, as in tests.
pub(super) fn set(level: &str) {
    if let Some(set) = SET.get() {
        set(level);
    }
}
