//! Points in time as a page shows them: UTC, which the script turns into the viewer's own zone.

use crate::admin::wire::Time;

/// For `<time>`: what is read, and the exact value.
pub struct Moment {
    pub text: String,
    pub exact: String,
}

impl From<Time> for Moment {
    fn from(time: Time) -> Self {
        let time = jiff::Timestamp::from_millisecond(time.0.as_millis()).unwrap_or_default();
        Self { text: time.strftime("%Y-%m-%d %H:%M UTC").to_string(), exact: format!("{time:.3}") }
    }
}
