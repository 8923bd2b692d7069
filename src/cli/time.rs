//! Durations and times as the user writes them, validated before anything is sent to the listener.

use crate::{admin::wire::HumanDuration, authz::time::Timestamp};

/// `90d`, `12h`, `30m`, `45s` or `2w`. A bare number is refused: `--expires-in 90` hardly means seconds.
pub(super) fn duration(text: &str) -> Result<String, String> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    match &text[number.len()..] {
        "s" | "m" | "h" | "d" | "w" if digits => match HumanDuration::parse(text) {
            Some(_) => Ok(text.to_owned()),
            None => Err("write at most 136 years".to_owned()),
        },
        "" if digits => {
            Err(format!("{text} of what? Write {text}d for days, {text}h for hours, {text}m or {text}s"))
        }
        _ => Err("write a number and a unit, such as 90d, 12h, 30m or 45s".to_owned()),
    }
}

/// An RFC 3339 time, or a date, which means its first moment in UTC.
pub(super) fn timestamp(text: &str) -> Result<String, String> {
    match (Timestamp::parse_date(text), Timestamp::parse(text)) {
        (Some(_), _) => Ok(format!("{text}T00:00:00Z")),
        (None, Some(_)) => Ok(text.to_owned()),
        (None, None) => {
            let form = "write a date, such as 2027-01-31, or a time, such as 2027-01-31T12:00:00Z";
            Err(format!("{form}, before 9999-12-30"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_unit() {
        let check = |text: &str, sound: bool| assert_eq!(duration(text).is_ok(), sound, "{text:?}");
        for sound in ["90d", "12h", "30m", "45s", "2w", "0s"] {
            check(sound, true);
        }
        for bad in ["90", "", "d", "90 days", "-1d", "1.5h", "90D", "1y", "10ms", "90d12h"] {
            check(bad, false);
        }
        assert!(duration("90").is_err_and(|why| why.contains("90d for days")));
        check("4294967295s", true);
        for long in ["4294967296s", "7102w", "99999999999999999999d"] {
            assert!(duration(long).is_err_and(|why| why.contains("136 years")), "{long}");
        }
    }

    #[test]
    fn a_date_is_its_first_moment() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(timestamp(text).ok().as_deref(), expected, "{text:?}");
        };
        check("2027-01-31", Some("2027-01-31T00:00:00Z"));
        check("2027-01-31T12:00:00Z", Some("2027-01-31T12:00:00Z"));
        check("2027-01-31T12:00:00+02:00", Some("2027-01-31T12:00:00+02:00"));
        check("2027-02-30", None);
        check("20270131", None);
        check("31.1.2027", None);
        check("tomorrow", None);
        check("9999-12-31", None);
        assert!(timestamp("9999-12-31").is_err_and(|why| why.contains("before 9999-12-30")));
        check("", None);
    }
}
