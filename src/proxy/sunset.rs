//! `Deprecation` (RFC 9745) and `Sunset` (RFC 8594) in responses to a token that is about to expire, so that
//! a pipeline's owner learns of it in time.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::fmt::rfc2822::DateTimePrinter;

use crate::authz::{decide::Permit, time::Timestamp};

const DEPRECATION: HeaderName = HeaderName::from_static("deprecation");
const SUNSET: HeaderName = HeaderName::from_static("sunset");

/// Returns the end to announce: that of a replaced token's grace period, or an expiry within `window`.
pub fn announced_end(permit: &Permit<'_>, window: Duration, now: Timestamp) -> Option<Timestamp> {
    let token = permit.subject()?.token;
    let latest = now.plus_seconds(i64::try_from(window.as_secs()).unwrap_or(i64::MAX));
    let expiry = token.expires_at.filter(|end| *end <= latest);
    expiry.into_iter().chain(token.end.grace_until()).min()
}

/// Sets both fields. They replace the upstream's own, which a client could not tell
/// apart; the token's expiry matters more.
pub fn set(headers: &mut HeaderMap, end: Timestamp, now: Timestamp) {
    let since = format!("@{}", now.as_millis().div_euclid(1000));
    let Ok(end) = jiff::Timestamp::from_millisecond(end.as_millis()) else { return };
    let Ok(end) = DateTimePrinter::new().timestamp_to_rfc9110_string(&end) else { return };
    for (name, value) in [(DEPRECATION, since), (SUNSET, end)] {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announced_end_follows_the_standards() {
        let mut headers = HeaderMap::new();
        set(
            &mut headers,
            Timestamp::from_millis(1_780_315_200_000),
            Timestamp::from_millis(1_780_315_100_999),
        );
        assert_eq!(headers["deprecation"], "@1780315100");
        assert_eq!(headers["sunset"], "Mon, 01 Jun 2026 12:00:00 GMT");
    }
}
