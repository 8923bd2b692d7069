//! One line: fixed fields in a fixed order, formatted without an allocation.

use std::{fmt, io::Write as _, net::IpAddr, time::Duration};

use crate::authz::{
    answer::Reason,
    secret::{self, TokenId},
    time::Timestamp,
};

/// The fields of a line. `None` is written as `null`.
#[derive(Debug)]
pub struct Line<'a> {
    pub at: Timestamp,
    /// Needs no escaping.
    pub request_id: &'a [u8],
    pub outcome: &'a str,
    pub reason: Reason,
    pub status: u16,
    pub method: &'a str,
    /// Without the query. A token in the path is redacted.
    pub path: &'a str,
    pub service: Option<&'a str>,
    pub token_id: Option<TokenId>,
    pub user: Option<&'a str>,
    /// Where the token stood; written only where some service accepts more than a bearer.
    pub carrier: Option<&'a str>,
    pub client: IpAddr,
    pub upstream: Option<&'a str>,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub duration: Duration,
    pub upstream_wait: Option<Duration>,
}

/// The last second that was formatted, since most lines share it with the one before.
#[derive(Debug, Default)]
pub struct Stamp {
    second: Option<i64>,
    text: String,
}

impl Line<'_> {
    pub fn format(&self, to: &mut Vec<u8>, stamp: &mut Stamp) {
        to.extend_from_slice(b"{\"time\":\"");
        stamp.format(self.at, to);
        // Ids, codes and our own words need no escaping.
        plain(to, b"\",\"request_id\":", Some(self.request_id));
        plain(to, b",\"outcome\":", Some(self.outcome.as_bytes()));
        plain(to, b",\"reason\":", Some(self.reason.code().as_bytes()));
        number(to, b",\"status\":", u64::from(self.status));
        text(to, b",\"method\":", Some(self.method));
        text(to, b",\"path\":", Some(&secret::redact(self.path)));
        plain(to, b",\"service\":", self.service.map(str::as_bytes));
        plain(to, b",\"token_id\":", self.token_id.as_ref().map(|id| &id.as_bytes()[..]));
        text(to, b",\"user\":", self.user);
        if self.carrier.is_some() {
            text(to, b",\"carrier\":", self.carrier);
        }
        append(to, format_args!(",\"client\":\"{}", self.client));
        text(to, b"\",\"upstream\":", self.upstream);
        number(to, b",\"bytes_in\":", self.bytes_in);
        number(to, b",\"bytes_out\":", self.bytes_out);
        milliseconds(to, b",\"duration_ms\":", Some(self.duration));
        milliseconds(to, b",\"upstream_ms\":", self.upstream_wait);
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
        append(to, format_args!("{}{milli:03}Z", self.text));
    }
}

/// A value that needs no escaping.
fn plain(to: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>) {
    to.extend_from_slice(key);
    let Some(value) = value else { return to.extend_from_slice(b"null") };
    to.push(b'"');
    to.extend_from_slice(value);
    to.push(b'"');
}

fn text(to: &mut Vec<u8>, key: &[u8], value: Option<&str>) {
    // No early exit, so that the compiler vectorizes this.
    let sound = |value: &str| value.bytes().fold(true, |all, byte| all & is_plain(byte));
    match value {
        Some(value) if !sound(value) => escaped(to, key, value),
        value => plain(to, key, value.map(str::as_bytes)),
    }
}

#[cold]
fn escaped(to: &mut Vec<u8>, key: &[u8], value: &str) {
    to.extend_from_slice(key);
    to.push(b'"');
    for byte in value.bytes() {
        if is_plain(byte) {
            to.push(byte);
        } else {
            append(to, format_args!("\\u{byte:04x}"));
        }
    }
    to.push(b'"');
}

fn is_plain(byte: u8) -> bool {
    byte >= 0x20 && byte != b'"' && byte != b'\\' && byte != 0x7f
}

fn number(to: &mut Vec<u8>, key: &[u8], value: u64) {
    to.extend_from_slice(key);
    append(to, format_args!("{value}"));
}

/// Whole milliseconds and three places.
fn milliseconds(to: &mut Vec<u8>, key: &[u8], value: Option<Duration>) {
    to.extend_from_slice(key);
    match value.map(|value| value.as_micros()) {
        Some(micros) => append(to, format_args!("{}.{:03}", micros / 1000, micros % 1000)),
        None => to.extend_from_slice(b"null"),
    }
}

fn append(to: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    to.write_fmt(text).expect("a Vec takes all of it");
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
            carrier: None,
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
