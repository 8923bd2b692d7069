//! A request's name across log, audit and upstream: a trusted proxy's, else one of our own.

use std::cell::Cell;

use http::{HeaderMap, HeaderName};

use crate::authz::forwarding::only_value;

/// Letters, digits, `.`, `_` and `-`: of a form that can be logged and sent as it stands.
#[derive(Clone, Debug)]
pub struct RequestId(Text);

#[derive(Clone, Debug)]
enum Text {
    Made([u8; MADE]),
    Sent(Box<[u8]>),
}

/// The worker's sixteen digits, a hyphen, and twelve of the request's number.
const MADE: usize = 29;

/// Makes ids: random once for each worker, then counted, since a random number for each request
/// would be a system call for each request.
pub struct RequestIds {
    worker: [u8; 16],
    made: Cell<u64>,
}

impl RequestIds {
    pub fn new() -> Self {
        let mut random = [0; 8];
        // Uniqueness is all that is asked; without a generator the clock has to do.
        if getrandom::fill(&mut random).is_err() {
            let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            let nanos = since.unwrap_or_default().as_nanos();
            random.copy_from_slice(&nanos.to_le_bytes()[..8]);
        }
        let mut worker = [0; 16];
        hex(u64::from_le_bytes(random), &mut worker);
        Self { worker, made: Cell::new(0) }
    }

    pub fn make(&self) -> RequestId {
        let number = self.made.get();
        self.made.set(number + 1);
        let mut id = [b'-'; MADE];
        id[..16].copy_from_slice(&self.worker);
        let mut counted = [0; 16];
        hex(number, &mut counted);
        id[17..].copy_from_slice(&counted[4..]);
        RequestId(Text::Made(id))
    }
}

impl RequestId {
    /// The one that a trusted proxy sent, when it is of that form.
    pub fn from_headers(headers: &HeaderMap) -> Option<RequestId> {
        let id = only_value(headers, HeaderName::from_static("x-request-id"))?;
        let sound = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let sound = (1..=128).contains(&id.len()) && id.iter().all(sound);
        sound.then(|| RequestId(Text::Sent(id.into())))
    }

    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Text::Made(id) => id,
            Text::Sent(id) => id,
        }
    }

    pub fn as_str(&self) -> &str {
        str::from_utf8(self.as_bytes()).expect("ASCII by its form")
    }
}

fn hex(number: u64, digits: &mut [u8; 16]) {
    for (place, digit) in digits.iter_mut().rev().enumerate() {
        *digit = b"0123456789abcdef"[(number >> (4 * place)) as usize & 15];
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
        fn check(row: &str, told: &[&str], expected: bool) {
            let mut headers = HeaderMap::new();
            for id in told {
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
