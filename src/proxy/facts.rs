//! The inputs of the decision, read once from a request's head, its id, and per-worker caches of values that
//! consecutive requests share.

use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
    rc::Rc,
};

use http::{HeaderMap, HeaderValue, header};

use crate::{
    authz::{
        carriers::{self, Carried, TargetOrigin},
        decide::Credential,
        destination::Destination,
        forwarding::{
            self, PeerFields, at_most_one, client_address, is_secure, method_override, stated_hosts,
        },
        host::Authority,
        reason::Reason,
    },
    net::Connection,
    proxy::{Gateway, is_peer_trusted, worker_state::WorkerState},
};

/// All inputs of the decision besides method and target. Kept while the request is live, because it is
/// decided again whenever the state changes.
pub struct RequestFacts {
    /// `None`: HTTP/1.0 without Host.
    pub host: Option<Rc<HostName>>,
    /// The credential in `Authorization: Bearer`.
    pub credential: Credential,
    /// The token may have the alias prefix, which is accepted only while `perm_alias` is on.
    pub by_alias: bool,
    /// The credentials in the other carriers that some service accepts.
    pub carried: Vec<Carried>,
    /// The client's address, as trusted proxies report it.
    pub client: IpAddr,
    pub upgrade: bool,
    /// Whether a field or the query asks the upstream for another method.
    pub method_override: bool,
    /// WebDAV's second target.
    pub destination: Option<Destination>,
    /// Whether the client used TLS. Only carriers of credentials depend on it.
    pub secure: bool,
    /// Hosts that a trusted proxy names besides the request's own.
    pub stated_hosts: Vec<String>,
}

impl RequestFacts {
    /// Reads the facts of a request for `host`. Errors: `Misdirected` if the proxy that named the peer is no
    /// longer trusted; `BadForwarded` if fields of trusted proxies are malformed or contradict each other.
    pub fn read(
        gateway: &Gateway,
        state: &WorkerState,
        connection: &Connection,
        headers: &HeaderMap,
        host: Option<Rc<HostName>>,
    ) -> Result<Self, Reason> {
        let settings = &state.snapshot.rules.settings;
        if !connection.has_trusted_address(&settings.trusted_proxies) {
            return Err(Reason::Misdirected);
        }
        let (peer, trusted) = (connection.address(), is_peer_trusted(state, connection));
        let client = client_address(headers, peer, trusted, &settings.trusted_proxies);
        let has_imports = gateway.parts.state.index().imported() > 0;
        let credential = Credential::from_headers(headers, settings.perm_alias, has_imports);
        // The scheme is read only where carriers depend on it.
        let has_carriers = state.snapshot.rules.carriers().is_some();
        let secure = connection.secure || has_carriers && trusted && is_secure(headers);
        let carried = state.snapshot.rules.carriers().map(|carriers| {
            let site = TargetOrigin { host: host.as_ref().map(|host| host.field()), secure };
            carriers::read(headers, credential, carriers, site, (settings.perm_alias, has_imports))
        });
        Ok(Self {
            client: client.map_err(|_| Reason::BadForwarded)?,
            credential,
            by_alias: settings.perm_alias && (carried.is_some() || Credential::may_have_alias(headers)),
            secure,
            carried: carried.unwrap_or_default(),
            upgrade: headers.contains_key(header::UPGRADE),
            method_override: method_override(headers),
            destination: Destination::from_headers(headers, host.as_ref().map(|host| host.field())),
            stated_hosts: if trusted {
                stated_hosts(headers).map_err(|_| Reason::BadForwarded)?
            } else {
                Vec::new()
            },
            host,
        })
    }

    /// The facts of a request whose head is malformed: only the peer's address.
    pub fn unreadable(peer: IpAddr) -> Self {
        Self {
            host: None,
            credential: Credential::Missing,
            by_alias: false,
            carried: Vec::new(),
            secure: false,
            client: peer,
            upgrade: false,
            method_override: false,
            destination: None,
            stated_hosts: Vec::new(),
        }
    }

    /// The host in lower case and without port.
    pub fn host_name(&self) -> Option<&str> {
        self.host.as_ref().map(|host| host.as_str())
    }

    /// The host as the client sent it.
    pub fn host_field(&self) -> Option<&[u8]> {
        self.host.as_ref().map(|host| host.field())
    }
}

/// A request's host in the form in which the decision compares it.
#[derive(Debug)]
pub struct HostName {
    field: Box<[u8]>,
    name: Box<str>,
}

impl HostName {
    /// Parses a host from a field of any name. A malformed host is `BadRequest`.
    pub fn parse(field: &[u8]) -> Result<Self, Reason> {
        let authority = Authority::parse(field).ok_or(Reason::BadRequest)?;
        Ok(Self { field: field.into(), name: authority.host.into() })
    }

    /// In lower case and without port.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// As the client sent it.
    pub fn field(&self) -> &[u8] {
        &self.field
    }
}

/// The most recent host, since a client rarely uses two.
#[derive(Default)]
pub struct HostCache(RefCell<Option<Rc<HostName>>>);

impl HostCache {
    /// Returns the host of a request; `net` admits at most one Host field. `None`: HTTP/1.0 without Host.
    pub fn of(&self, headers: &HeaderMap) -> Result<Option<Rc<HostName>>, Reason> {
        let Some(field) = headers.get(header::HOST) else { return Ok(None) };
        let mut last = self.0.borrow_mut();
        if let Some(last) = last.as_ref().filter(|last| *last.field == *field.as_bytes()) {
            return Ok(Some(Rc::clone(last)));
        }
        Ok(Some(Rc::clone(last.insert(Rc::new(HostName::parse(field.as_bytes())?)))))
    }
}

/// The forwarded fields of each client address. One per worker and of fixed size: an address replaces another
/// one in the same slot, because computing the fields again is cheap.
#[derive(Default)]
pub struct ForwardedCache(RefCell<Vec<Option<CacheEntry>>>);

type CacheEntry = ((IpAddr, bool), PeerFields);

const SLOTS: usize = 1024;

impl ForwardedCache {
    pub fn with<R>(&self, address: IpAddr, secure: bool, then: impl FnOnce(&PeerFields) -> R) -> R {
        let places = &mut *self.0.borrow_mut();
        if places.is_empty() {
            places.resize(SLOTS, None);
        }
        let place = &mut places[slot_of(address)];
        let of = (address, secure);
        let (_, fields) = match place {
            Some(known) if known.0 == of => known,
            _ => place.insert((of, PeerFields::new(Some(address), secure))),
        };
        then(fields)
    }
}

/// Mixes all bytes, because addresses of one network differ in the last ones and networks in the first ones.
fn slot_of(address: IpAddr) -> usize {
    let bits = match address {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            (bits ^ bits >> 64) as u64
        }
    };
    (bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54) as usize % SLOTS
}

/// Consists of letters, digits, `.`, `_` and `-`, so it needs no escaping in logs and fields.
#[derive(Clone, Debug)]
pub struct RequestId(HeaderValue);

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
        RequestId(HeaderValue::try_from(id).expect("digits are visible ASCII"))
    }
}

impl RequestId {
    /// Returns the id that a trusted proxy sent, if it is well-formed.
    pub fn from_headers(headers: &HeaderMap) -> Option<RequestId> {
        let id = at_most_one(headers, forwarding::REQUEST_ID).ok()??;
        let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let valid = (1..=128).contains(&id.len()) && id.as_bytes().iter().all(allowed);
        valid.then(|| RequestId(id.clone()))
    }

    pub fn value(&self) -> &HeaderValue {
        &self.0
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    pub fn as_str(&self) -> &str {
        self.0.to_str().expect("a request id is visible ASCII")
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn host_is_normalized_before_comparison() {
        let cache = HostCache::default();
        let check = |row: &str, field: Option<&'static str>, expected: Result<Option<&str>, Reason>| {
            let mut headers = HeaderMap::new();
            headers.extend(field.map(|field| (header::HOST, http::HeaderValue::from_static(field))));
            // The second lookup hits the cache.
            for _ in 0..2 {
                let found = cache.of(&headers);
                let found = found.as_ref().map(|host| host.as_ref().map(|host| host.as_str()));
                assert_eq!(found.map_err(|reason| *reason), expected, "{row}");
            }
        };
        check("a name", Some("a.example"), Ok(Some("a.example")));
        check("case is folded", Some("A.Example:8080"), Ok(Some("a.example")));
        check("a port is cut", Some("a.example:8080"), Ok(Some("a.example")));
        check("IPv6", Some("[::1]:80"), Ok(Some("[::1]")));
        check("IPv6 in another spelling", Some("[0:0::0001]:80"), Ok(Some("[::1]")));
        check("a dot behind", Some("a.example."), Ok(Some("a.example")));
        check("none", None, Ok(None));
        check("malformed", Some("a..b"), Err(Reason::BadRequest));
    }

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
