//! One line: fixed fields in a fixed order, formatted without an allocation.

use std::{io::Write, net::IpAddr, time::Duration};

use crate::authz::{answer::Reason, secret, time::Timestamp};

/// What a line tells. `None` is written as `null`.
#[derive(Debug)]
pub struct Line<'a> {
    pub at: Timestamp,
    pub request_id: &'a [u8],
    pub outcome: &'a str,
    pub reason: Reason,
    pub status: u16,
    pub method: &'a str,
    /// Without query; a token in it is redacted here.
    pub path: &'a str,
    pub service: Option<&'a str>,
    pub token_id: Option<&'a str>,
    pub user: Option<&'a str>,
    pub client: IpAddr,
    pub upstream: Option<&'a str>,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub duration: Duration,
    pub upstream_wait: Option<Duration>,
}

/// The last second that was formatted: most lines share it with the one before.
#[derive(Debug, Default)]
pub struct Stamp {
    second: Option<i64>,
    text: String,
}

impl Line<'_> {
    pub fn format(&self, to: &mut Vec<u8>, stamp: &mut Stamp) {
        to.extend_from_slice(b"{\"time\":\"");
        stamp.format(self.at, to);
        to.push(b'"');
        text(to, "request_id", Some(&String::from_utf8_lossy(self.request_id)));
        text(to, "outcome", Some(self.outcome));
        text(to, "reason", Some(self.reason.code()));
        number(to, "status", Some(u64::from(self.status)));
        text(to, "method", Some(self.method));
        text(to, "path", Some(&secret::redact(self.path)));
        text(to, "service", self.service);
        text(to, "token_id", self.token_id);
        text(to, "user", self.user);
        // An address writes itself; a Vec takes all of it.
        let _ = write!(to, ",\"client\":\"{}\"", self.client);
        text(to, "upstream", self.upstream);
        number(to, "bytes_in", Some(self.bytes_in));
        number(to, "bytes_out", Some(self.bytes_out));
        milliseconds(to, "duration_ms", Some(self.duration));
        milliseconds(to, "upstream_ms", self.upstream_wait);
        to.extend_from_slice(b"}\n");
    }
}

impl Stamp {
    fn format(&mut self, at: Timestamp, to: &mut Vec<u8>) {
        let (second, milli) = (at.as_millis().div_euclid(1000), at.as_millis().rem_euclid(1000));
        if self.second != Some(second) {
            let time = jiff::Timestamp::from_second(second).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
            self.text = time.strftime("%Y-%m-%dT%H:%M:%S.").to_string();
            self.second = Some(second);
        }
        to.extend_from_slice(self.text.as_bytes());
        padded(to, milli.unsigned_abs());
        to.push(b'Z');
    }
}

fn key(to: &mut Vec<u8>, name: &str) {
    to.extend_from_slice(b",\"");
    to.extend_from_slice(name.as_bytes());
    to.extend_from_slice(b"\":");
}

fn text(to: &mut Vec<u8>, name: &str, value: Option<&str>) {
    key(to, name);
    let Some(value) = value else { return to.extend_from_slice(b"null") };
    to.push(b'"');
    let mut plain = 0;
    for (at, byte) in value.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' && byte != 0x7f {
            continue;
        }
        to.extend_from_slice(&value.as_bytes()[plain..at]);
        let _ = write!(to, "\\u{byte:04x}");
        plain = at + 1;
    }
    to.extend_from_slice(&value.as_bytes()[plain..]);
    to.push(b'"');
}

fn number(to: &mut Vec<u8>, name: &str, value: Option<u64>) {
    key(to, name);
    match value {
        Some(value) => digits(to, value),
        None => to.extend_from_slice(b"null"),
    }
}

/// Whole milliseconds and three places.
fn milliseconds(to: &mut Vec<u8>, name: &str, value: Option<Duration>) {
    key(to, name);
    let Some(value) = value else { return to.extend_from_slice(b"null") };
    let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
    digits(to, micros / 1000);
    to.push(b'.');
    padded(to, micros % 1000);
}

fn digits(to: &mut Vec<u8>, mut value: u64) {
    let mut text = [0; 20];
    let mut from = text.len();
    loop {
        from -= 1;
        text[from] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            return to.extend_from_slice(&text[from..]);
        }
    }
}

/// Below 1000, three places.
fn padded(to: &mut Vec<u8>, value: u64) {
    to.extend([100, 10, 1].map(|place| b'0' + (value / place % 10) as u8));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_json_with_its_fields_in_order() {
        let line = Line {
            at: Timestamp::from_millis(1_780_315_200_007),
            request_id: b"a-1",
            outcome: "forwarded",
            reason: Reason::Ok,
            status: 200,
            method: "GET",
            path: "/api/\"x\\\u{1}",
            service: Some("youtrack"),
            token_id: None,
            user: Some("j\u{fc}rgen"),
            client: "2001:db8::1".parse().expect("an address"),
            upstream: Some("127.0.0.1:8090"),
            bytes_in: 0,
            bytes_out: 18_446_744_073_709_551_615,
            duration: Duration::from_micros(12_034),
            upstream_wait: None,
        };
        let (mut to, mut stamp) = (Vec::new(), Stamp::default());
        line.format(&mut to, &mut stamp);
        line.format(&mut to, &mut stamp);
        let text = String::from_utf8(to).expect("UTF-8");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], lines[1]);
        assert_eq!(
            lines[0],
            "{\"time\":\"2026-06-01T12:00:00.007Z\",\"request_id\":\"a-1\",\"outcome\":\"forwarded\",\
             \"reason\":\"ok\",\"status\":200,\"method\":\"GET\",\"path\":\"/api/\\u0022x\\u005c\\u0001\",\
             \"service\":\"youtrack\",\"token_id\":null,\"user\":\"j\u{fc}rgen\",\"client\":\"2001:db8::1\",\
             \"upstream\":\"127.0.0.1:8090\",\"bytes_in\":0,\"bytes_out\":18446744073709551615,\
             \"duration_ms\":12.034,\"upstream_ms\":null}"
        );
        let parsed: serde_json::Value = serde_json::from_str(lines[0]).expect("JSON");
        assert_eq!(parsed["path"], "/api/\"x\\\u{1}");
    }
}
