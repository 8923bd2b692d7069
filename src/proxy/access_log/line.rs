//! One access log line: JSON with fixed fields in a fixed order.

use std::{cell::RefCell, net::IpAddr, time::Duration};

use serde::{Serialize, Serializer};

use crate::authz::{administration::names, secret, time::Timestamp};

/// The fields of a line. `None` is written as `null`.
#[derive(Debug, Serialize)]
pub struct LogLine<'a> {
    #[serde(rename = "time", serialize_with = "time")]
    pub at: Timestamp,
    pub request_id: &'a str,
    pub outcome: &'a str,
    pub reason: &'a str,
    pub status: u16,
    pub method: &'a str,
    /// Without the query. Tokens in it are redacted.
    #[serde(serialize_with = "redacted")]
    pub path: &'a str,
    pub service: Option<&'a str>,
    pub token_id: Option<&'a str>,
    pub user: Option<&'a str>,
    /// Where the token was; omitted unless some service accepts more than a bearer token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub carrier: Option<&'a str>,
    pub client: IpAddr,
    pub upstream: Option<&'a str>,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub duration_ms: f64,
    /// From the head of the request to the head of the upstream's response.
    pub upstream_ms: Option<f64>,
}

thread_local! {
    /// The last formatted second, because most lines share it with the previous one.
    static SECOND: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) };
}

impl LogLine<'_> {
    pub fn format(&self, to: &mut Vec<u8>) {
        let begin = to.len();
        serde_json::to_writer(&mut *to, self).expect("a Vec takes all of it, and no field can fail");
        if !to[begin..].is_ascii() {
            escape(to, begin);
        }
        to.push(b'\n');
    }
}

/// Escapes the characters that steer a terminal, which JSON permits: strangers choose the path, and people
/// read logs in terminals.
fn escape(line: &mut Vec<u8>, begin: usize) {
    let raw = line.split_off(begin);
    for c in String::from_utf8_lossy(&raw).chars() {
        if names::is_deceptive(c) {
            let units =
                c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect::<String>();
            line.extend_from_slice(units.as_bytes());
        } else {
            line.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
}

fn time<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    let (second, milli) = (at.as_millis().div_euclid(1000), at.as_millis().rem_euclid(1000));
    SECOND.with_borrow_mut(|(last, text)| {
        if *last != second {
            let time = jiff::Timestamp::from_second(second).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
            (*last, *text) = (second, time.strftime("%Y-%m-%dT%H:%M:%S").to_string());
        }
        serializer.collect_str(&format_args!("{text}.{milli:03}Z"))
    })
}

fn redacted<S: Serializer>(path: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&secret::redact(path))
}

/// In milliseconds, to three decimals.
#[expect(clippy::cast_precision_loss, reason = "285 years of microseconds are exact")]
pub fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_line_is_json_with_ordered_fields() {
        let line = LogLine {
            at: Timestamp::from_millis(1_780_315_200_007),
            request_id: "a-1",
            outcome: "forwarded",
            reason: "ok",
            status: 200,
            method: "GET",
            path: "/api/\"x\\\u{1}\u{9b}\u{202e}\u{e0041}\u{e9}",
            service: Some("youtrack"),
            token_id: None,
            user: Some("j\u{fc}rgen"),
            carrier: None,
            client: "2001:db8::1".parse().expect("an address"),
            upstream: Some("127.0.0.1:8090"),
            bytes_in: 0,
            bytes_out: 18_446_744_073_709_551_615,
            duration_ms: millis(Duration::from_micros(12_034)),
            upstream_ms: None,
        };
        let mut to = Vec::new();
        line.format(&mut to);
        line.format(&mut to);
        let text = String::from_utf8(to).expect("UTF-8");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], lines[1]);
        assert_eq!(
            lines[0],
            "{\"time\":\"2026-06-01T12:00:00.007Z\",\"request_id\":\"a-1\",\"outcome\":\"forwarded\",\
             \"reason\":\"ok\",\"status\":200,\"method\":\"GET\",\"path\":\"/api/\\\"x\\\\\\u0001\\u009b\\u202e\\udb40\\udc41\u{e9}\",\
             \"service\":\"youtrack\",\"token_id\":null,\"user\":\"j\u{fc}rgen\",\"client\":\"2001:db8::1\",\
             \"upstream\":\"127.0.0.1:8090\",\"bytes_in\":0,\"bytes_out\":18446744073709551615,\
             \"duration_ms\":12.034,\"upstream_ms\":null}"
        );
        let parsed: serde_json::Value = serde_json::from_str(lines[0]).expect("JSON");
        assert_eq!(parsed["path"], "/api/\"x\\\u{1}\u{9b}\u{202e}\u{e0041}\u{e9}");
    }
}
