//! Rules as configured: services, public rules, and settings of the whole gateway.

use std::{borrow::Borrow, collections::HashMap, fmt, sync::Arc};

use http::Method;
use strum::{EnumString, VariantNames};

use crate::authz::{
    carriers::Carriers,
    forwarding::{FieldPolicy, TrustedProxies},
    secret::redact_debug,
};

/// A service's key, the word for it in scopes: `[a-z][a-z0-9-]{0,62}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey(pub(super) Arc<str>);

/// The number of a service key in this process; below 2^15.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId(pub u16);

/// Numbers the service keys in configuration and scopes, for the life of the process.
#[derive(Clone, Debug, Default)]
pub struct ServiceIds {
    by_key: HashMap<ServiceKey, ServiceId>,
}

/// Where a rule is written in the configuration; reported by `explain`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub file: Arc<str>,
    pub line: u32,
}

/// What happens to the client's `Authorization` field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authorization {
    Strip,
    Keep,
    /// Replaced by the upstream's own credential, as the whole field value.
    Replace(Secret),
}

/// How the upstream is told who sent the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, VariantNames)]
#[strum(serialize_all = "lowercase")]
pub enum Identity {
    /// The `X-Permgate-*` fields.
    Headers,
    /// Only a signed assertion.
    Jwt,
    /// The fields and the assertion.
    Both,
    None,
}

/// A field value that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub http::HeaderValue);

redact_debug!(Secret);

/// A path check that a service can relax (`allow = [...]`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, EnumString, VariantNames)]
#[strum(serialize_all = "kebab-case")]
pub enum Allowance {
    /// Readings that fold letters to lower case need not agree.
    LetterCase,
    /// Readings that merge `//` need not agree.
    EmptySegments,
    /// Readings that take `%2F`/`%5C` as separators need not agree.
    EncodedSlashes,
    /// Readings that cut `;params` need not agree.
    PathParameters,
    /// Escapes need not decode to UTF-8.
    InvalidUtf8,
}

/// A set of allowances.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowances(u8);

/// A method that a `read` scope may use, on all paths or on those that `prefix` matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadMethod {
    pub method: Method,
    /// A prefix of whole segments, in which `*` matches any one segment. After a leading `*/`, the last
    /// segments of the path.
    pub prefix: Option<String>,
}

/// A service as configured.
#[derive(Clone, Debug)]
pub struct ServiceSpec {
    pub key: ServiceKey,
    pub title: String,
    pub about: String,
    /// The name of an `[upstream.NAME]`.
    pub upstream: Arc<str>,
    /// 1 to 32 absolute prefixes without a trailing `/`, except `/` itself.
    pub paths: Vec<String>,
    /// In lower case, without port; empty: any host.
    pub hosts: Vec<String>,
    /// Group names, compared without regard to case.
    pub readers: Vec<String>,
    /// `None`: every method except TRACE and CONNECT.
    pub methods: Option<Vec<Method>>,
    pub read_methods: Vec<ReadMethod>,
    pub authorization: Authorization,
    /// Where a request may carry a token.
    pub credentials: Carriers,
    /// Whether this is a container registry. Below `/v2/`, challenges then name the token endpoint, as OCI
    /// clients expect.
    pub registry: bool,
    pub identity: Identity,
    /// Group names that the upstream is told; `None`: the readers.
    pub identity_groups: Option<Vec<String>>,
    pub allow: Vec<Allowance>,
    /// Which of the client's header fields are forwarded.
    pub fields: FieldPolicy,
    /// In bytes; `None`: the server's limit.
    pub max_body: Option<u64>,
    pub origin: Origin,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicPath {
    Exact(String),
    Prefix(String),
}

/// `[[public]]`: a path that needs no token.
#[derive(Clone, Debug)]
pub struct PublicSpec {
    pub service: ServiceKey,
    /// `None`: GET, HEAD and OPTIONS.
    pub methods: Option<Vec<Method>>,
    pub path: PublicPath,
    pub origin: Origin,
}

/// Settings of the whole gateway that take part in the decision.
#[derive(Clone, Debug)]
pub struct Settings {
    pub perm_alias: bool,
    pub trusted_proxies: TrustedProxies,
}

impl Identity {
    pub const fn has_headers(self) -> bool {
        matches!(self, Self::Headers | Self::Both)
    }

    pub const fn has_assertion(self) -> bool {
        matches!(self, Self::Jwt | Self::Both)
    }
}

impl Allowances {
    pub const NONE: Self = Self(0);

    #[must_use]
    pub const fn with(self, allowance: Allowance) -> Self {
        Self(self.0 | 1 << allowance as u8)
    }

    pub const fn contains(self, allowance: Allowance) -> bool {
        self.0 & (1 << allowance as u8) != 0
    }

    pub const fn is_subset_of(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl ServiceKey {
    pub fn parse(text: &str) -> Option<Self> {
        let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let sound =
            text.len() <= 63 && text.starts_with(|c: char| c.is_ascii_lowercase()) && text.bytes().all(word);
        sound.then(|| Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ServiceIds {
    /// The id of a key that was interned before.
    pub fn get(&self, key: &str) -> Option<ServiceId> {
        self.by_key.get(key).copied()
    }

    /// `None` once 2^15 keys are known.
    pub fn intern(&mut self, key: &ServiceKey) -> Option<ServiceId> {
        if let Some(id) = self.by_key.get(key) {
            return Some(*id);
        }
        let id = ServiceId(u16::try_from(self.by_key.len()).ok().filter(|n| *n < 1 << 15)?);
        self.by_key.insert(key.clone(), id);
        Some(id)
    }
}

impl Borrow<str> for ServiceKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}
