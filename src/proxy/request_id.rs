//! A request's name across log, audit and upstream: a trusted proxy's, else one of our own.

use std::cell::Cell;

use http::{HeaderMap, HeaderName};

use crate::authz::forwarding::only_value;

/// Letters, digits, `.`, `_` and `-`, so that it can be logged and sent without escaping.
#[derive(Clone, Debug)]
pub struct RequestId(Box<str>);

/// Makes ids: a random part per worker and a counter, since a random number per request would be a
/// system call per request.
pub struct RequestIds {
    /// 16 hexadecimal digits and a hyphen.
    worker: String,
    made: Cell<u64>,
}

/// Hexadecimal digits of a request's number.
const DIGITS: u32 = 12;

impl RequestIds {
    pub fn new() -> Self {
        let mut random = [0; 8];
        // Uniqueness is all that is needed; without a generator the clock has to do.
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
        let mut id = String::with_capacity(self.worker.len() + DIGITS as usize);
        id.push_str(&self.worker);
        // Digit by digit: every request has an id, and `format!` takes several times as long.
        id.extend((0..DIGITS).rev().filter_map(|at| char::from_digit((number >> (4 * at)) as u32 & 15, 16)));
        RequestId(id.into())
    }
}

impl RequestId {
    /// The id that a trusted proxy sent, if it is well-formed.
    pub fn from_headers(headers: &HeaderMap) -> Option<RequestId> {
        let id = only_value(headers, HeaderName::from_static("x-request-id"))?;
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
    fn made_ids_differ_and_could_be_told_again() {
        let ids = RequestIds::new();
        let (first, second) = (ids.make(), ids.make());
        assert_ne!(first.as_str(), second.as_str());
        let mut headers = HeaderMap::new();
        headers.insert("x-request-id", HeaderValue::from_bytes(first.as_bytes()).expect("a field value"));
        assert_eq!(RequestId::from_headers(&headers).expect("sound").as_str(), first.as_str());
    }

    #[test]
    fn only_one_sound_id_is_taken_over() {
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
