//! Carriers of tokens besides `Authorization: Bearer`: which ones a service accepts, which ones a request
//! has, and which of them counts.

use std::fmt;

use http::{HeaderName, HeaderValue};
use strum::{IntoStaticStr, VariantArray};

use crate::authz::decide::Credential;

pub use read::{TargetOrigin, from_password, password, read};
pub use strip::{other_protocols, restrict_caching, strip, strip_others};

mod read;
mod strip;

/// A place in a request where a token may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// `Authorization: Bearer TOKEN` (RFC 6750, 2.1).
    Bearer,
    /// `Authorization: Basic` (RFC 7617): the password is the token, the user name is ignored.
    Basic,
    /// `Authorization: TOKEN`, without a scheme.
    Raw,
    /// A field of this name with the token as its whole value.
    Header(HeaderName),
    /// An entry `permgate.bearer.TOKEN` in `Sec-WebSocket-Protocol`, beside at least one other entry.
    Websocket,
}

/// A [`Carrier`] other than `Bearer`, without the field name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum CarrierKind {
    Basic,
    Raw,
    Header,
    Websocket,
}

/// The carriers that a service accepts: `service.NAME.credentials`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carriers {
    pub bearer: bool,
    pub basic: bool,
    pub raw: bool,
    pub websocket: bool,
    /// Distinct names without `_` and `.`.
    pub headers: Vec<HeaderName>,
}

/// A credential in a carrier other than `Authorization: Bearer`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    pub carrier: Carrier,
    pub credential: Credential,
    /// Whether a service may choose it. The others are only removed.
    pub counts: bool,
}

impl Carried {
    pub fn new(carrier: Carrier, credential: Credential) -> Self {
        Self { carrier, credential, counts: true }
    }
}

impl Carriers {
    pub const NONE: Self =
        Self { bearer: false, basic: false, raw: false, websocket: false, headers: Vec::new() };
    /// The default of a service.
    pub const BEARER: Self =
        Self { bearer: true, basic: false, raw: false, websocket: false, headers: Vec::new() };

    pub fn accepts(&self, carrier: &Carrier) -> bool {
        match carrier {
            Carrier::Bearer => self.bearer,
            Carrier::Basic => self.basic,
            Carrier::Raw => self.raw,
            Carrier::Header(name) => self.headers.contains(name),
            Carrier::Websocket => self.websocket,
        }
    }

    /// Whether any form of `Authorization` is accepted.
    pub fn accepts_authorization(&self) -> bool {
        self.bearer || self.basic || self.raw
    }

    pub fn insert(&mut self, carrier: Carrier) {
        match carrier {
            Carrier::Bearer => self.bearer = true,
            Carrier::Basic => self.basic = true,
            Carrier::Raw => self.raw = true,
            Carrier::Websocket => self.websocket = true,
            Carrier::Header(name) if self.headers.contains(&name) => {}
            Carrier::Header(name) => self.headers.push(name),
        }
    }

    /// In the order of the documentation: the headers last.
    pub fn iter(&self) -> impl Iterator<Item = Carrier> {
        let named = [
            (self.bearer, Carrier::Bearer),
            (self.basic, Carrier::Basic),
            (self.raw, Carrier::Raw),
            (self.websocket, Carrier::Websocket),
        ];
        let named = named.into_iter().filter_map(|(accepted, carrier)| accepted.then_some(carrier));
        named.chain(self.headers.iter().cloned().map(Carrier::Header))
    }

    /// Returns the credential that counts for a service with these carriers, and its position in `others`,
    /// which is `None` for `Authorization: Bearer` or no credential. Carriers with the same text hold one
    /// credential; with different texts they are ambiguous.
    pub fn choose(&self, authorization: Credential, others: &[Carried]) -> (Credential, Option<usize>) {
        // Two Authorization fields are always ambiguous.
        if authorization == Credential::Ambiguous {
            return (authorization, None);
        }
        let unsupported = !self.bearer && authorization != Credential::Missing;
        let mut chosen = (if unsupported { Credential::UnsupportedScheme } else { authorization }, None);
        let accepted = |one: &Carried| one.counts && self.accepts(&one.carrier);
        for (at, carried) in others.iter().enumerate().filter(|(_, one)| accepted(one)) {
            let digest = chosen.0.digest();
            if chosen.0.is_absent() {
                chosen = (carried.credential, Some(at));
            } else if digest.is_none() || digest != carried.credential.digest() {
                return (Credential::AmbiguousCarrier, None);
            }
        }
        chosen
    }

    /// Whether a value of `Authorization` is in one of the accepted forms.
    pub fn accept_authorization(&self, value: &HeaderValue) -> bool {
        let value = value.as_bytes().trim_ascii_start();
        let is_scheme = |scheme: &[u8]| {
            let (start, rest) = value.split_at_checked(scheme.len()).unwrap_or_default();
            start.eq_ignore_ascii_case(scheme) && !rest.first().is_some_and(u8::is_ascii_alphanumeric)
        };
        self.bearer && is_scheme(b"bearer")
            || self.basic && is_scheme(b"basic")
            || self.raw && !value.contains(&b' ')
    }
}

impl Carrier {
    /// Parses the configuration's spelling; `None` if it is unknown, or names a field that must not hold a
    /// token.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "bearer" => Some(Self::Bearer),
            "basic" => Some(Self::Basic),
            "raw" => Some(Self::Raw),
            "websocket" => Some(Self::Websocket),
            _ => {
                let name = HeaderName::from_bytes(text.strip_prefix("header:")?.as_bytes()).ok()?;
                read::can_carry(&name).then_some(Self::Header(name))
            }
        }
    }

    /// `None` for `Authorization: Bearer`.
    pub fn kind(&self) -> Option<CarrierKind> {
        match self {
            Self::Bearer => None,
            Self::Basic => Some(CarrierKind::Basic),
            Self::Raw => Some(CarrierKind::Raw),
            Self::Header(_) => Some(CarrierKind::Header),
            Self::Websocket => Some(CarrierKind::Websocket),
        }
    }
}

impl CarrierKind {
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The label in metrics.
    pub const fn code(self) -> &'static str {
        self.into_str()
    }

    /// Whether it uses `Authorization`. Caches treat the responses to such requests as private (RFC 9111,
    /// 3.5).
    pub const fn is_authorization(self) -> bool {
        matches!(self, Self::Basic | Self::Raw)
    }
}

/// The configuration's spelling.
impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, self.kind()) {
            (Self::Header(name), _) => write!(f, "header:{name}"),
            (_, Some(kind)) => f.write_str(kind.code()),
            (_, None) => f.write_str("bearer"),
        }
    }
}

#[cfg(test)]
mod tests;
