//! The id of a request in the log, the audit log and at the upstream: a trusted proxy's, or a new one.

use std::cell::Cell;

use http::{HeaderMap, HeaderName};

use crate::authz::forwarding::single_value;

/// Consists of letters, digits, `.`, `_` and `-`, so it needs no escaping in logs and fields.
#[derive(Clone, Debug)]
pub struct RequestId(Box<str>);

/// Generates ids from a random prefix per worker and a counter, which avoids a system call per request.
pub struct RequestIds {
    /// 16 hexadecimal digits and a hyphen.
    worker: String,
    made: Cell<u64>,
}

/// Hexadecimal digits of the counter.
const COUNTER_DIGITS: u32 = 12;

impl RequestIds {
    pub fn new() -> Self {
        let mut random = [0; 8];
        // Ids only have to be unique, so the clock can replace a failing generator.
        if getrandom::fill(&mut random).is_err() {
            let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            let nanos = since.unwrap_or_default().as_nanos();
            random.copy_from_slice(&nanos.to_le_bytes()[..8]);
        }
        Self { worker: format!("{:016x}-", u64::from_le_bytes(random)), made: Cell::new(0) }
    }

    pub fn make(&self) -> RequestId {
        let number = self.made.get();
        self.made.set(number + 1);
        let mut id = String::with_capacity(self.worker.len() + COUNTER_DIGITS as usize);
        id.push_str(&self.worker);
        // Digit by digit, because `format!` takes several times as long.
        id.extend(
            (0..COUNTER_DIGITS).rev().filter_map(|at| char::from_digit((number >> (4 * at)) as u32 & 15, 16)),
        );
        RequestId(id.into())
    }
}

impl RequestId {
    /// Returns the id that a trusted proxy sent, if it is well-formed.
    pub fn from_headers(headers: &HeaderMap) -> Option<RequestId> {
        let id = single_value(headers, HeaderName::from_static("x-request-id"))?;
        let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let valid = (1..=128).contains(&id.len()) && id.iter().all(allowed);
        str::from_utf8(id).ok().filter(|_| valid).map(|id| RequestId(id.into()))
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn generated_ids_are_unique_and_valid_request_ids() {
        let ids = RequestIds::new();
        let (first, second) = (ids.make(), ids.make());
        assert_ne!(first.as_str(), second.as_str());
        let mut headers = HeaderMap::new();
        headers.insert("x-request-id", HeaderValue::from_bytes(first.as_bytes()).expect("a field value"));
        assert_eq!(RequestId::from_headers(&headers).expect("sound").as_str(), first.as_str());
    }

    #[test]
    fn only_a_single_valid_request_id_is_kept() {
        fn check(row: &str, sent: &[&str], expected: bool) {
            let mut headers = HeaderMap::new();
            for id in sent {
                headers.append("x-request-id", HeaderValue::from_str(id).expect("a field value"));
            }
            assert_eq!(RequestId::from_headers(&headers).is_some(), expected, "{row}");
        }
        check("sound", &["ci-4711.a_B"], true);
        check("none", &[], false);
        check("empty", &[""], false);
        check("two", &["a", "b"], false);
        check("128 characters", &[&"a".repeat(128)], true);
        check("129 characters", &[&"a".repeat(129)], false);
        check("a space", &["a b"], false);
        check("a quote", &["a\"b"], false);
    }
}
