//! Codes, counts, sizes, spans and times in plain words, as a page shows them. A time is how long ago or ahead
//! it is, with the exact time in UTC.

use crate::{admin::wire::Time, authz::time::Timestamp};

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// Beyond this, a date is shown instead of a number of days.
const RELATIVE: i64 = 60 * DAY;
const SOON: i64 = 14 * DAY;

impl Time {
    /// How long ago or ahead it is, or the date of a time far away.
    pub fn in_words(self) -> String {
        self.in_words_at(Self::now())
    }

    fn in_words_at(self, now: Timestamp) -> String {
        let ahead = self.seconds_after(now);
        if ahead.abs() < RELATIVE { relative(ahead) } else { day(self) }
    }

    /// The value for `<time>`.
    pub fn exact(self) -> String {
        self.0.rfc3339(0).unwrap_or_default()
    }

    /// Whether it is less than two weeks ahead.
    pub fn is_soon(self) -> bool {
        self.is_soon_at(Self::now())
    }

    fn is_soon_at(self, now: Timestamp) -> bool {
        (0..SOON).contains(&self.seconds_after(now))
    }

    fn seconds_after(self, now: Timestamp) -> i64 {
        (self.0.as_millis() - now.as_millis()) / 1000
    }
}

/// `4 Jan 2027`, in UTC.
fn day(time: Time) -> String {
    let date = jiff::Timestamp::from_millisecond(time.0.as_millis()).unwrap_or_default();
    date.strftime("%-d %b %Y").to_string()
}

fn relative(ahead: i64) -> String {
    let seconds = ahead.abs();
    let (count, unit) = match seconds {
        0..10 => return if ahead <= 0 { "just now" } else { "in a few seconds" }.to_owned(),
        10..MINUTE => (seconds, "second"),
        MINUTE..HOUR => (seconds / MINUTE, "minute"),
        HOUR..DAY => (seconds / HOUR, "hour"),
        _ => (seconds / DAY, "day"),
    };
    let plural = if count == 1 { "" } else { "s" };
    if ahead < 0 { format!("{count} {unit}{plural} ago") } else { format!("in {count} {unit}{plural}") }
}

/// `4 s`, `12 min`, `3 h 5 min`: how long something has been in progress.
pub fn format_span(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// `812 B`, `4.1 KiB`.
pub fn bytes(count: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "for display only")]
    let mut value = count as f64;
    let mut unit = "B";
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, larger);
    }
    if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") }
}

/// A line for each code.
const REASONS: &str = include_str!("reasons.txt");

/// The reason of a refusal, as a phrase within a sentence.
pub fn reason(code: &str) -> &str {
    let known = REASONS.lines().find_map(|line| line.strip_prefix(code)?.strip_prefix(": "));
    known.unwrap_or(code)
}

/// The colour of a state's chip.
pub fn state_tone(state: &str) -> &'static str {
    match state {
        "active" => "good",
        "pending" => "info",
        "rotating" => "warn",
        _ => "bad",
    }
}

/// `1 token`, `2 tokens`.
pub fn count(number: usize, one: &str) -> String {
    format!("{number} {one}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use strum::VariantArray as _;

    use super::*;
    use crate::authz::reason::Reason;

    #[test]
    fn near_times_are_relative_and_far_ones_are_dates() {
        let now = Timestamp::from_millis(1_798_761_600_000);
        let check = |seconds: i64, text: &str, soon: bool| {
            let time = Time(now.plus_seconds(seconds));
            assert_eq!((time.in_words_at(now).as_str(), time.is_soon_at(now)), (text, soon), "{seconds}");
        };
        check(0, "just now", true);
        check(-45, "45 seconds ago", false);
        check(-60, "1 minute ago", false);
        check(-7300, "2 hours ago", false);
        check(-86_400, "1 day ago", false);
        check(3 * DAY + 5, "in 3 days", true);
        check(15 * DAY, "in 15 days", false);
        check(90 * DAY, "1 Apr 2027", false);
        check(-400 * DAY, "27 Nov 2025", false);
    }

    #[test]
    fn sizes_and_spans_have_units() {
        assert_eq!(
            ["812 B", "1.0 KiB", "4.5 MiB"],
            [bytes(812), bytes(1024), bytes(4_718_592)].each_ref().map(String::as_str)
        );
        assert_eq!(
            ["4 s", "2 min", "1 h 1 min", "2 d 0 h"],
            [format_span(4_200), format_span(150_000), format_span(3_660_000), format_span(172_900_000)]
                .each_ref()
                .map(String::as_str)
        );
    }

    #[test]
    fn every_reason_of_a_refusal_has_words() {
        let fine = [Reason::Ok, Reason::OkAnonymous, Reason::Answered];
        for reason in Reason::VARIANTS.iter().filter(|reason| !fine.contains(reason)) {
            assert_ne!(super::reason(reason.code()), reason.code());
        }
    }
}
