//! Services and public rules, compiled to a prefix table: host + longest prefix owns a path.

use std::{collections::HashMap, fmt, sync::Arc};

use http::Method;
use ipnet::IpNet;

use crate::authz::path::RequestPath;

/// A service's scope word: `[a-z][a-z0-9-]{0,62}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey(Arc<str>);

/// A service key as a number, interned once a process; below 2^15.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId(pub u16);

/// The interner: keys seen in configuration or scopes, for the life of the process.
#[derive(Clone, Debug, Default)]
pub struct ServiceIds {
    by_key: HashMap<ServiceKey, ServiceId>,
    keys: Vec<ServiceKey>,
}

/// Where a rule was written; opaque here, told by `explain`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub file: Arc<str>,
    pub line: u32,
}

/// What becomes of the client's `Authorization` field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authorization {
    Strip,
    Keep,
    /// The upstream's own credential, sent as the whole field value. Redact in `Debug` by the type.
    Replace(Secret),
}

/// A field value that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub http::HeaderValue);

/// A rule of one service that relaxes a path refusal (`allow = [...]`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Allowance {
    /// Readings that fold letters to lower case need not agree.
    LetterCase,
    /// Readings that merge `//` need not agree.
    EmptySegments,
    /// Readings that take `%2F`/`%5C` as separators need not agree.
    EncodedSlashes,
    /// Readings that cut `;params` need not agree.
    PathParameters,
}

/// A set of allowances.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowances(u8);

/// A method a `read` scope may use, everywhere or below a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadMethod {
    pub method: Method,
    pub prefix: Option<String>,
}

/// A service as written.
#[derive(Clone, Debug)]
pub struct ServiceSpec {
    pub key: ServiceKey,
    pub title: String,
    pub about: String,
    /// Name of an `[upstream.NAME]`.
    pub upstream: Arc<str>,
    /// 1..=32 absolute prefixes, no trailing `/` (but `/` itself).
    pub paths: Vec<String>,
    /// Lower case, without port; empty: any.
    pub hosts: Vec<String>,
    /// Group names, ci.
    pub readers: Vec<String>,
    /// `None`: every method but TRACE and CONNECT.
    pub methods: Option<Vec<Method>>,
    pub read_methods: Vec<ReadMethod>,
    pub authorization: Authorization,
    /// Whether identity fields are set (`identity = "none"` switches them off).
    pub identity: bool,
    /// Group names told to the upstream; `None`: the readers.
    pub identity_groups: Option<Vec<String>>,
    pub allow: Vec<Allowance>,
    /// Bytes; `None`: the server's.
    pub max_body: Option<u64>,
    pub origin: Origin,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicPath {
    Exact(String),
    Prefix(String),
}

/// `[[public]]`: the only way past a token.
#[derive(Clone, Debug)]
pub struct PublicSpec {
    pub service: ServiceKey,
    /// `None`: GET, HEAD and OPTIONS.
    pub methods: Option<Vec<Method>>,
    pub path: PublicPath,
    pub origin: Origin,
}

/// What decides beside services: settings of the whole gateway.
#[derive(Clone, Debug)]
pub struct Settings {
    pub perm_alias: bool,
    pub trusted_proxies: Vec<IpNet>,
}

/// A service as compiled.
#[derive(Clone, Debug)]
pub struct Service {
    pub id: ServiceId,
    pub spec: ServiceSpec,
}

/// All rules, immutable; replaced as a whole by a reload.
#[derive(Debug)]
pub struct Rules {
    services: Vec<Service>,
    pub settings: Settings,
    // The authz work package adds the prefix table.
}

/// Who owns a path: the service, the public rule that also matches (for its methods), and the read
/// rule; readings must agree on all of it.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'r> {
    pub service: &'r Service,
    /// The `[[public]]` rule that matches path and method.
    pub public: Option<&'r PublicSpec>,
    /// The prefix that won.
    pub prefix: &'r str,
    /// Whether the method counts as reading on this path.
    pub reading: bool,
}

/// The literal path has an owner and another reading lands elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disagreement {
    pub reading: String,
}

/// A contradiction between rules, told with both places.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RuleError {
    pub message: String,
    pub origin: Origin,
}

/// The key of the built-in service: the admin listener itself, readable by `all-users`.
pub const BUILT_IN_SERVICE: &str = "permgate";

impl Rules {
    /// Compiles, or tells every contradiction (a host + prefix with two owners, an unknown service
    /// in a public rule, the built-in key). The built-in service is added by itself.
    pub fn compile(
        _services: Vec<ServiceSpec>,
        _public: Vec<PublicSpec>,
        _settings: Settings,
        _ids: &mut ServiceIds,
    ) -> Result<Self, Vec<RuleError>> {
        todo!()
    }

    /// The owner by agreement of all readings; `Ok(None)`: the literal path has none.
    pub fn owner<'r>(
        &'r self,
        _path: &RequestPath<'_>,
        _host: Option<&str>,
        _method: &Method,
    ) -> Result<Option<Owner<'r>>, Disagreement> {
        todo!()
    }

    /// In the order of the configuration, the built-in one last.
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    pub fn service(&self, id: ServiceId) -> Option<&Service> {
        self.services.iter().find(|s| s.id == id)
    }

    pub fn service_by_key(&self, key: &str) -> Option<&Service> {
        self.services.iter().find(|s| s.spec.key.as_str() == key)
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
    pub fn parse(_text: &str) -> Option<Self> {
        todo!()
    }
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ServiceIds {
    /// `None` when 2^15 keys were seen.
    pub fn intern(&mut self, key: &ServiceKey) -> Option<ServiceId> {
        if let Some(id) = self.by_key.get(key) {
            return Some(*id);
        }
        let id = ServiceId(u16::try_from(self.keys.len()).ok().filter(|n| *n < 1 << 15)?);
        self.keys.push(key.clone());
        self.by_key.insert(key.clone(), id);
        Some(id)
    }

    pub fn key(&self, id: ServiceId) -> Option<&ServiceKey> {
        self.keys.get(usize::from(id.0))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
