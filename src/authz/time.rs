//! Points in time for the decision: whole milliseconds since the Unix epoch, UTC. Reads no clock.

use std::{fmt, num::NonZero, time::Duration};

/// Milliseconds since 1970-01-01T00:00:00Z.
///
/// Stored with the sign bit flipped, which keeps the order, and never zero, so that an `Option` of it takes
/// no more space: a million tokens have two each. `i64::MIN`, which would be zero, becomes `i64::MIN + 1`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(NonZero<u64>);

const SIGN: u64 = 1 << 63;

impl Timestamp {
    pub const fn from_millis(millis: i64) -> Self {
        match NonZero::new(millis.cast_unsigned() ^ SIGN) {
            Some(flipped) => Self(flipped),
            None => Self(NonZero::<u64>::MIN),
        }
    }

    pub const fn as_millis(self) -> i64 {
        (self.0.get() ^ SIGN).cast_signed()
    }

    /// A time as RFC 3339 writes it, or a date.
    pub fn parse(text: &str) -> Option<Self> {
        Self::parse_date(text).or_else(|| {
            let time: jiff::Timestamp = text.parse().ok()?;
            Some(Self::from_millis(time.as_millisecond()))
        })
    }

    /// The time as RFC 3339 writes it, with some digits of the second's fraction; `None` beyond the year 9999.
    pub fn rfc3339(self, digits: usize) -> Option<String> {
        let time = jiff::Timestamp::from_millisecond(self.as_millis()).ok()?;
        Some(format!("{time:.digits$}"))
    }

    /// The first moment of a date such as `2027-01-31`, in UTC.
    pub fn parse_date(text: &str) -> Option<Self> {
        let date: jiff::civil::Date = text.parse().ok().filter(|_| text.len() == "2027-01-31".len())?;
        let start: jiff::Timestamp = format!("{date}T00:00:00Z").parse().ok()?;
        Some(Self::from_millis(start.as_millisecond()))
    }

    /// This time plus `duration`; saturates.
    pub fn plus(self, duration: Duration) -> Self {
        Self::from_millis(self.as_millis().saturating_add(millis(duration)))
    }

    /// This time minus `duration`; saturates.
    pub fn minus(self, duration: Duration) -> Self {
        Self::from_millis(self.as_millis().saturating_sub(millis(duration)))
    }

    /// This time plus `seconds`; saturates.
    pub const fn plus_seconds(self, seconds: i64) -> Self {
        Self::from_millis(self.as_millis().saturating_add(seconds.saturating_mul(1000)))
    }
}

impl From<std::time::SystemTime> for Timestamp {
    /// A time before 1970 becomes the epoch.
    fn from(time: std::time::SystemTime) -> Self {
        let since = time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self::from_millis(millis(since))
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Timestamp").field(&self.as_millis()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_back_and_keep_their_order() {
        let times = [i64::MIN + 1, -1, 0, 1, 1_700_000_000_000, i64::MAX];
        let made = times.map(Timestamp::from_millis);
        assert_eq!(made.map(Timestamp::as_millis), times);
        assert!(made.is_sorted());
        assert_eq!(Timestamp::from_millis(i64::MIN), made[0], "the one that does not fit");
        assert_eq!(made[3].plus_seconds(-1).as_millis(), -999);
        assert_eq!(size_of::<Option<Timestamp>>(), 8);
    }

    #[test]
    fn a_date_is_its_first_moment() {
        let check = |text: &str, time: Option<i64>, date: Option<i64>| {
            let parsed = [Timestamp::parse(text), Timestamp::parse_date(text)];
            assert_eq!(parsed.map(|time| time.map(Timestamp::as_millis)), [time, date], "{text:?}");
        };
        check("1970-01-02", Some(86_400_000), Some(86_400_000));
        check("1970-01-01T00:00:01.002Z", Some(1002), None);
        check("1970-01-01T02:00:00+02:00", Some(0), None);
        for bad in ["2027-02-30", "20270131", "31.1.2027", "2027-01-31T12:00:00", "tomorrow", ""] {
            check(bad, None, None);
        }
    }
}
