//! Parses durations (`10s`, `500ms`, `1h`, `90d`) and sizes (`256m`, `32k`).

use std::time::Duration;

/// The form of a duration, for messages.
pub const DURATION_FORM: &str = "a number and one of ms, s, m, h, d, w, such as \"10s\"";
/// The form of a size, for messages.
pub const SIZE_FORM: &str = "a number of bytes, optionally with k, m or g (powers of 1024), such as \"256m\"";

/// The longest duration, which keeps every later sum in range.
pub const MAX_DURATION: Duration = Duration::from_secs(100 * 366 * 86_400);

/// The units of a duration with their milliseconds, in the order in which [`in_words`] prefers them.
const UNITS: [(&str, u64); 6] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1), ("w", 7 * 86_400_000)];

/// `None` if it is malformed or longer than [`MAX_DURATION`].
pub fn duration(text: &str) -> Option<Duration> {
    let (number, millis) = number_and_unit(text)?;
    Some(Duration::from_millis(number?.checked_mul(millis)?)).filter(|d| *d <= MAX_DURATION)
}

/// Whether it has the form of a duration, however long.
pub fn is_duration(text: &str) -> bool {
    number_and_unit(text).is_some()
}

/// The duration as it would be written in the file, in its largest whole unit.
pub fn in_words(duration: Duration) -> String {
    let millis = duration.as_millis();
    let (unit, size) =
        UNITS.into_iter().find(|(_, size)| millis.is_multiple_of(u128::from(*size))).unwrap_or(("ms", 1));
    format!("{}{unit}", millis / u128::from(size))
}

/// The number, if it fits, and the milliseconds of its unit.
fn number_and_unit(text: &str) -> Option<(Option<u64>, u64)> {
    let (number, unit) = split(text)?;
    let (_, millis) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
    Some((number, millis))
}

/// `None` if it is malformed or at least 2^63 bytes.
pub fn size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let number = number?;
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(factor).filter(|bytes| *bytes < 1 << 63)
}

/// The size as it would be written in the file.
pub fn size_in_words(bytes: u64) -> String {
    match bytes {
        _ if bytes.is_multiple_of(1 << 20) => format!("{}m", bytes >> 20),
        _ if bytes.is_multiple_of(1 << 10) => format!("{}k", bytes >> 10),
        _ => bytes.to_string(),
    }
}

/// The number, `None` if it does not fit, and the unit.
fn split(text: &str) -> Option<(Option<u64>, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let sound = digits.starts_with(|c: char| c.is_ascii_digit()) && !digits.ends_with('_');
    sound.then(|| (digits.replace('_', "").parse().ok(), unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check = |text: &str, millis: Option<u64>| {
            assert_eq!(duration(text), millis.map(Duration::from_millis), "{text:?}");
        };
        check("10s", Some(10_000));
        check("500ms", Some(500));
        check("1h", Some(3_600_000));
        check("90d", Some(7_776_000_000));
        check("1_000 s", Some(1_000_000));
        check("0s", Some(0));
        check("10", None);
        check("s", None);
        check("_1s", None);
        check("1_s", None);
        check("-1s", None);
        check("1.5s", None);
        check("10S", None);
        check("2w", Some(1_209_600_000));
        check("1y", None);
        check("40000d", None);
        check("99999999999999999999s", None);
    }

    #[test]
    fn durations_in_words() {
        let check = |millis: u64, expected: &str| {
            assert_eq!(in_words(Duration::from_millis(millis)), expected);
            assert_eq!(duration(expected), Some(Duration::from_millis(millis)));
        };
        check(1, "1ms");
        check(1_000, "1s");
        check(1_500, "1500ms");
        check(86_400_000, "1d");
        check(7 * 86_400_000, "7d");
        assert!(is_duration("99999999999999999999s") && !is_duration("1y"));
    }

    #[test]
    fn sizes() {
        let check = |text: &str, bytes: Option<u64>| assert_eq!(size(text), bytes, "{text:?}");
        check("256m", Some(256 << 20));
        check("32k", Some(32 << 10));
        check("32 KiB", Some(32 << 10));
        check("1g", Some(1 << 30));
        check("1_000", Some(1000));
        check("", None);
        check("k", None);
        check("1t", None);
        check("9999999999g", None);
        for text in ["1", "1000", "16k", "1m", "1025k"] {
            assert_eq!(size(text).map(size_in_words).as_deref(), Some(text));
        }
    }
}
