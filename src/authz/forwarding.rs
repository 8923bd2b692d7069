//! Pure edits of a message's fields: what would be sent upstream, and what goes back. In place,
//! since copying them costs more than the whole decision.

use std::{cell::RefCell, net::IpAddr, ops::Deref};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{
    authz::{
        cookies,
        decide::Permit,
        destination::{self, Destination},
        rules::Authorization,
        subject::Directory,
    },
    message::Fields,
};

pub use client::{AmbiguousClient, TrustedProxies, client_address};
pub use dropped::{FieldPattern, FieldPolicy, Kind, PassField, PassFrom, kind, patterns};
pub use hop::stated_hosts;
pub use identity::{ASSERTION, Claims, Identities};
use names::{Side, crosses, may_be_listed};
pub use names::{framing_alias, method_override, misleads};

mod client;
mod dropped;
mod hop;
mod identity;
mod names;

/// What a connection contributes to every request on it; made once, when it is accepted.
#[derive(Clone, Debug)]
pub struct PeerFields {
    address: Option<HeaderValue>,
    ip: Option<IpAddr>,
    /// The beginning of our element of `Forwarded`.
    element: String,
    proto: HeaderValue,
    /// All fields of the hop, and the host that they name: hardly a client asks for two.
    told: RefCell<Option<(Option<Vec<u8>>, Fields)>>,
}

/// What a request adds to its connection's part.
#[derive(Clone, Copy, Debug)]
pub struct Hop<'a> {
    pub peer: &'a PeerFields,
    /// The connection comes from a trusted proxy: its `Forwarded` and `X-Forwarded-*` are kept and
    /// added to. Anybody else's are dropped.
    pub peer_trusted: bool,
    /// The host as the client sent it.
    pub host: Option<&'a [u8]>,
    /// Printable ASCII.
    pub request_id: &'a [u8],
    /// The second target of the request, which the permit includes.
    pub destination: Option<&'a Destination>,
}

/// The user's groups do not fit; they are never cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the groups of the user do not fit into 4 KiB")]
pub struct IdentityTooLarge;

/// Makes the fields of a permitted request those that the upstream gets.
pub fn edit_request(
    fields: &mut Fields,
    permit: &Permit<'_>,
    identities: &Identities<impl Deref<Target = Directory>>,
    hop: &Hop<'_>,
) -> Result<(), IdentityTooLarge> {
    let service = permit.owner().service;
    let side = if hop.peer_trusted { Side::TrustedRequest } else { Side::Request };
    let takes_trailers = drop_fields(fields, side, &service.spec.fields);
    drop_own_cookies(fields);
    match &service.spec.authorization {
        Authorization::Strip => fields.remove("authorization"),
        // Of a bearer that is forwarded anonymously the upstream is not to hear: the token is not
        // granted for this service, or its owner may not read it.
        Authorization::Keep if permit.subject().is_none() => drop_bearer(fields),
        Authorization::Keep => {}
        Authorization::Replace(credential) => {
            fields.set("authorization", &credential.0);
        }
    }
    if takes_trailers {
        fields.set("te", &HeaderValue::from_static("trailers"));
    }
    if hop.peer_trusted {
        hop::add(fields, hop);
    } else {
        hop.peer.tell(fields, hop.host);
    }
    if let Some(target) = hop.destination.and_then(Destination::target) {
        fields.add(destination::NAME, target);
    }
    fields.add_text(REQUEST_ID, hop.request_id);
    if service.spec.identity.has_headers() {
        identities.set(fields, permit)?;
    }
    Ok(())
}

/// Drops from a request's trailers what [`edit_request`] would not let through as a header.
pub fn edit_request_trailers(trailers: &mut HeaderMap, policy: &FieldPolicy) {
    edit_trailers(trailers, Side::RequestTrailers, policy);
}

/// Drops what concerns the upstream's connection alone and sets `X-Request-Id`.
pub fn edit_response(fields: &mut Fields, request_id: &[u8]) {
    drop_fields(fields, Side::Response, &FieldPolicy::default());
    fields.retain(|name, value| name != b"set-cookie" || !cookies::sets_own(value));
    fields.add_text(REQUEST_ID, request_id);
}

/// Drops from an answer's trailers what frames, routes or concerns one connection.
pub fn edit_response_trailers(trailers: &mut HeaderMap) {
    edit_trailers(trailers, Side::ResponseTrailers, &FieldPolicy::default());
}

fn edit_trailers(trailers: &mut HeaderMap, side: Side, policy: &FieldPolicy) {
    let mut fields = Fields::from(&*trailers);
    drop_fields(&mut fields, side, policy);
    *trailers = (&fields).into();
}

impl PeerFields {
    /// `None`: a unix socket.
    pub fn new(address: Option<IpAddr>, secure: bool) -> Self {
        let proto = if secure { "https" } else { "http" };
        let text = address.map(|address| address.to_canonical().to_string());
        let node = hop::node(address);
        Self {
            address: text.and_then(|text| HeaderValue::from_str(&text).ok()),
            ip: address,
            element: format!("for={node};proto={proto}"),
            proto: HeaderValue::from_static(proto),
            told: RefCell::default(),
        }
    }

    /// Our element of `Forwarded`, for a host that needs no escaping.
    fn element(&self, host: Option<&HeaderValue>) -> HeaderValue {
        let mut element = self.element.clone();
        if let Some(host) = host.and_then(|host| host.to_str().ok()) {
            element.push_str(";host=\"");
            element.push_str(host);
            element.push('"');
        }
        HeaderValue::try_from(element).expect("a host that is_host is visible ASCII")
    }

    /// `Forwarded` and `X-Forwarded-*` when nothing of them is there.
    fn tell(&self, fields: &mut Fields, host: Option<&[u8]>) {
        if let Some((of, told)) = &*self.told.borrow()
            && of.as_deref() == host
        {
            return fields.add_all(told);
        }
        let sound = host.filter(|host| is_host(host)).and_then(|host| HeaderValue::from_bytes(host).ok());
        let mut told = Fields::default();
        if let Some(address) = &self.address {
            told.add(FORWARDED_FOR, address);
        }
        told.add(FORWARDED, &self.element(sound.as_ref()));
        told.add(FORWARDED_PROTO, &self.proto);
        if let Some(host) = &sound {
            told.add(FORWARDED_HOST, host);
        }
        fields.add_all(&told);
        self.told.replace(Some((host.map(Vec::from), told)));
    }
}

const REQUEST_ID: &str = "x-request-id";
const FORWARDED: &str = "forwarded";
const FORWARDED_FOR: &str = "x-forwarded-for";
const FORWARDED_HOST: &str = "x-forwarded-host";
const FORWARDED_PROTO: &str = "x-forwarded-proto";
const FORWARDED_PORT: &str = "x-forwarded-port";

/// Only our own `TE` goes on, and only when the client said that it takes trailers.
fn accepts_trailers(fields: &Fields) -> bool {
    let mut codings = fields.all("te").flat_map(|te| te.split(|byte| *byte == b','));
    codings.any(|coding| {
        let coding = coding.split(|byte| *byte == b';').next().unwrap_or_default();
        coding.trim_ascii().eq_ignore_ascii_case(b"trailers")
    })
}

/// Drops what `Connection` names and what does not cross this side; makes `Trailer` anew. Whether
/// `TE` said that trailers are taken.
fn drop_fields(fields: &mut Fields, side: Side, policy: &FieldPolicy) -> bool {
    // Most have nothing of it. What is looked for below does not cross.
    let drops = fields.iter().any(|(name, _)| !crosses(name, side, policy));
    if !drops && !fields.has("trailer") {
        return false;
    }
    // Before `Connection` is obeyed, which has to name `TE`.
    let takes_trailers = accepts_trailers(fields);
    let listed = listed(fields);
    fields.retain(|name, _| crosses(name, side, policy) && !listed.iter().any(|listed| listed == name));
    if fields.has("trailer") {
        remake_trailer(fields, side, policy);
    }
    takes_trailers
}

/// Browsers send the cookies of the admin listener to every port of its host.
fn drop_own_cookies(fields: &mut Fields) {
    let others: Vec<_> =
        fields.all("cookie").map(|value| (cookies::without_own(value), value.to_vec())).collect();
    if others.iter().all(|(without, _)| without.is_none()) {
        return;
    }
    fields.remove("cookie");
    for value in others.into_iter().map(|(without, value)| without.unwrap_or(value)).filter(|v| !v.is_empty())
    {
        fields.append(b"cookie", &value);
    }
}

fn drop_bearer(fields: &mut Fields) {
    let is_bearer = |value: &[u8]| {
        let scheme = value.trim_ascii_start().first_chunk::<6>();
        scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer"))
    };
    if fields.all("authorization").any(is_bearer) {
        fields.remove("authorization");
    }
}

/// The fields that `Connection` names; what others rely on cannot be dropped that way.
fn listed(fields: &Fields) -> Vec<Vec<u8>> {
    let options = fields.all("connection").flat_map(|value| value.split(|byte| *byte == b','));
    options
        .map(|option| option.trim_ascii().to_ascii_lowercase())
        .filter(|option| may_be_listed(option))
        .collect()
}

/// The trailers that may pass, and those alone.
fn remake_trailer(fields: &mut Fields, side: Side, policy: &FieldPolicy) {
    let mut names = String::new();
    for name in fields.all("trailer").flat_map(|value| value.split(|byte| *byte == b',')) {
        let name = name.trim_ascii().to_ascii_lowercase();
        if let Ok(name) = HeaderName::from_bytes(&name)
            && crosses(name.as_str().as_bytes(), side.trailers(), policy)
        {
            names.push_str(if names.is_empty() { "" } else { ", " });
            names.push_str(name.as_str());
        }
    }
    fields.remove("trailer");
    if !names.is_empty() {
        fields.add("trailer", &HeaderValue::try_from(names).expect("field names are visible ASCII"));
    }
}

/// A host that needs no escaping inside of quotes.
fn is_host(host: &[u8]) -> bool {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b':');
    !host.is_empty() && host.iter().all(|b| plain(b) || b"_~[]%!$&'()*+,;=".contains(b))
}

#[cfg(test)]
mod tests;
