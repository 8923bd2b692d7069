//! Reads the credentials in a request's head, once, before its service is known.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::{Carried, Carrier, CarrierKind, Carriers};
use crate::authz::{
    decide::Credential,
    forwarding::{folds_onto, is_reserved, list_elements, single_value},
    host::Authority,
    secret::Bearer,
};

/// Where a request was sent, for comparison with a browser's `Origin`.
#[derive(Clone, Copy, Debug)]
pub struct TargetOrigin<'a> {
    /// `Host` as the client sent it.
    pub host: Option<&'a [u8]>,
    /// Whether the connection has TLS.
    pub secure: bool,
}

/// The settings for parsing texts.
#[derive(Clone, Copy)]
struct Reader {
    perm_alias: bool,
    imports: bool,
}

/// The prefix of an entry of `Sec-WebSocket-Protocol` that holds a token.
pub const PROTOCOL: &[u8] = b"permgate.bearer.";
/// The longest decoded Basic credential in bytes. A user name of 256 beside a token of 512 fits.
const MAX_BASIC: usize = 1024;

/// Reads every credential in one of `carriers` other than `Bearer`. `authorization` must be the result of
/// [`Credential::from_headers`] for the same fields.
pub fn read(
    headers: &HeaderMap,
    authorization: Credential,
    carriers: &Carriers,
    site: TargetOrigin<'_>,
    (perm_alias, imports): (bool, bool),
) -> Vec<Carried> {
    let reader = Reader { perm_alias, imports };
    let mut found = Vec::new();
    if authorization == Credential::UnsupportedScheme
        && let Some(value) = headers.get(header::AUTHORIZATION)
    {
        found.extend(reader.authorization(value.as_bytes(), carriers, || is_same_site(headers, site)));
    }
    for name in &carriers.headers {
        found.extend(reader.header(headers, name));
    }
    if carriers.websocket {
        found.extend(reader.websocket(headers));
    }
    found
}

/// The password of a request's only Basic credential (RFC 7617), as it was sent.
pub fn password(headers: &HeaderMap) -> Option<String> {
    let encoded = strip_basic_scheme(single_value(headers, header::AUTHORIZATION)?)?;
    let mut buffer = [0; MAX_BASIC + 2];
    str::from_utf8(decode_password(encoded, &mut buffer)?).ok().map(str::to_owned)
}

/// The credential in a text that a person typed as a password.
pub fn from_password(text: Option<&str>, perm_alias: bool, imports: bool) -> Credential {
    let reader = Reader { perm_alias, imports };
    text.map_or(Credential::Missing, |text| reader.password(text.as_bytes()))
}

/// Whether a field of this name may hold a token. Excludes fields that frame or route the message, concern
/// one connection, identify the client, or have a standard meaning.
pub fn can_carry(name: &HeaderName) -> bool {
    const HAVE_MEANING: &str = "authorization cookie set-cookie host origin content-type content-encoding content-range \
                                expect range cache-control vary www-authenticate accept user-agent";
    let name_is = |start: &str| name.as_str().starts_with(start);
    let has_meaning = HAVE_MEANING.split(' ').any(|field| name == field);
    !has_meaning
        && !name_is("sec-")
        && !is_reserved(name)
        && name.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

impl Reader {
    fn token(self, kind: CarrierKind, text: &[u8]) -> Credential {
        match Bearer::parse(text).map(|bearer| Credential::of(bearer, self.perm_alias, self.imports)) {
            Some((form, digest)) => Credential::Carried { kind, form, digest },
            None => Credential::MalformedCarrier,
        }
    }

    /// Reads a field value that is not of the Bearer scheme.
    fn authorization(
        self,
        value: &[u8],
        carriers: &Carriers,
        is_same_site: impl FnOnce() -> bool,
    ) -> Option<Carried> {
        if carriers.basic
            && let Some(encoded) = strip_basic_scheme(value)
        {
            let mut buffer = [0; MAX_BASIC + 2];
            let password = decode_password(encoded, &mut buffer);
            let credential = password.map_or(Credential::Malformed, |text| self.password(text));
            return Some(Carried { carrier: Carrier::Basic, credential, counts: is_same_site() });
        }
        let is_raw = carriers.raw && Bearer::parse(value).is_some();
        is_raw.then(|| Carried::new(Carrier::Raw, self.token(CarrierKind::Raw, value)))
    }

    fn password(self, text: &[u8]) -> Credential {
        match self.token(CarrierKind::Basic, text) {
            // A person typed it, so it is a wrong password rather than a malformed request.
            Credential::MalformedCarrier => Credential::foreign(CarrierKind::Basic),
            credential => credential,
        }
    }

    fn header(self, headers: &HeaderMap, name: &HeaderName) -> Option<Carried> {
        let is_disguised = headers.keys().any(|other| other != name && folds_onto(other, name.as_str()));
        let credential = match single_value(headers, name.clone()) {
            Some(value) if !is_disguised => self.token(CarrierKind::Header, value),
            None if !is_disguised && !headers.contains_key(name) => return None,
            _ => Credential::AmbiguousCarrier,
        };
        Some(Carried::new(Carrier::Header(name.clone()), credential))
    }

    fn websocket(self, headers: &HeaderMap) -> Option<Carried> {
        const NAME: HeaderName = header::SEC_WEBSOCKET_PROTOCOL;
        let is_disguised = headers.keys().any(|other| *other != NAME && folds_onto(other, NAME.as_str()));
        let (mut token, mut tokens, mut others) = (None, 0, 0);
        for entry in list_elements(headers, NAME) {
            match token_entry(entry) {
                Some(text) => (token, tokens) = (Some(text), tokens + 1),
                None => others += 1,
            }
        }
        let credential = match (token, tokens, others) {
            _ if is_disguised => Credential::AmbiguousCarrier,
            (None, ..) => return None,
            (Some(_), 2.., _) => Credential::AmbiguousCarrier,
            // The entry is stripped, so the upstream cannot choose it. A browser fails if none of its entries
            // is chosen.
            (Some(_), _, 0) => Credential::MalformedCarrier,
            (Some(text), ..) => self.token(CarrierKind::Websocket, text),
        };
        Some(Carried::new(Carrier::Websocket, credential))
    }
}

/// The token's text in an entry of `Sec-WebSocket-Protocol`, if it holds one.
pub fn token_entry(entry: &[u8]) -> Option<&[u8]> {
    let (start, text) = entry.split_at_checked(PROTOCOL.len())?;
    start.eq_ignore_ascii_case(PROTOCOL).then_some(text)
}

fn strip_basic_scheme(value: &[u8]) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"basic";
    let (scheme, rest) = value.split_at_checked(SCHEME.len())?;
    let is_whole = rest.first().is_none_or(|byte| *byte == b' ');
    (is_whole && scheme.eq_ignore_ascii_case(SCHEME)).then_some(rest)
}

/// RFC 7617, 2: the password is everything after the first colon.
fn decode_password<'b>(encoded: &[u8], buffer: &'b mut [u8]) -> Option<&'b [u8]> {
    let length = STANDARD.decode_slice(encoded.trim_ascii(), buffer).ok()?;
    let colon = buffer[..length].iter().position(|byte| *byte == b':')?;
    Some(&buffer[colon + 1..length])
}

/// Whether a Basic credential counts. Browsers store and resend it, so pages of other sites must not be able
/// to use it (Fetch Metadata; RFC 6454).
fn is_same_site(headers: &HeaderMap, site: TargetOrigin<'_>) -> bool {
    const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
    let fetched = headers.get_all(SEC_FETCH_SITE).iter().map(HeaderValue::as_bytes);
    let origins = headers.get_all(header::ORIGIN).iter().map(HeaderValue::as_bytes);
    fetched.into_iter().all(|site| matches!(site, b"none" | b"same-origin"))
        && origins.into_iter().all(|origin| is_same_origin(origin, site))
}

/// Whether an `Origin` is that of the request's target. On a connection without TLS both schemes match, since
/// a proxy in front may have terminated TLS.
fn is_same_origin(origin: &[u8], site: TargetOrigin<'_>) -> bool {
    let (default, authority) = match (origin.strip_prefix(b"https://"), origin.strip_prefix(b"http://")) {
        (Some(authority), _) => (443, authority),
        (_, Some(authority)) if !site.secure => (80, authority),
        _ => return false,
    };
    let parsed = (Authority::parse(authority), site.host.and_then(Authority::parse));
    let (Some(origin), Some(host)) = parsed else { return false };
    origin.is_same(&host, default)
}
