//! Services and public rules, compiled into prefix tables: the longest prefix on a host owns a path. Whether
//! a subject may use the service is decided in `decide`.

use std::collections::{HashMap, HashSet};

use http::{HeaderValue, Method};

use crate::authz::path::{Reading, RequestPath};

pub use credentials::HostCarriers;
use credentials::HostCredentials;
use short_names::{Directories, TooMuchWork, Work};
pub use spec::{
    Allowance, Allowances, Authorization, Identity, Origin, PublicPath, PublicSpec, ReadMethod, Secret,
    ServiceId, ServiceIds, ServiceKey, ServiceSpec, Settings,
};
use table::{CaseMatching, Table, matches_pattern};

mod compile;
mod credentials;
mod short_names;
mod spec;
mod table;

/// A compiled service.
#[derive(Clone, Debug)]
pub struct Service {
    pub id: ServiceId,
    pub spec: ServiceSpec,
    /// The key as a header field value, built once.
    pub key_value: HeaderValue,
    allow: Allowances,
    /// Its public rules by path.
    public: Table<Vec<PublicRule>>,
}

/// All rules. Immutable; a reload replaces them as a whole.
#[derive(Debug)]
pub struct Rules {
    services: Vec<Service>,
    public: Vec<PublicSpec>,
    pub settings: Settings,
    /// Positions in `services` by [`ServiceId`].
    by_id: Vec<Option<u32>>,
    by_key: HashMap<ServiceKey, u32>,
    /// Prefixes of services without `hosts`.
    any_host: HostClaims,
    /// Prefixes of services with `hosts`. They take precedence over `any_host`, whatever the length of the
    /// prefix.
    hosts: HashMap<Box<str>, HostClaims>,
    /// Whether some prefix has upper-case letters. If so, paths without any are also looked up folded.
    capitals: bool,
    /// `None` if every service accepts only the default, `Authorization: Bearer`.
    host_credentials: Option<Box<HostCredentials>>,
}

/// The claims on a host's prefixes.
#[derive(Debug)]
struct HostClaims {
    table: Table<Option<Claim>>,
    directories: Directories,
}

/// The claim on a prefix.
#[derive(Clone, Debug)]
enum Claim {
    Service {
        service: u32,
        prefix: Box<str>,
    },
    /// `/.permgate`: owned by no service, even if one owns `/`.
    Reserved,
}

#[derive(Clone, Copy, Debug)]
struct PublicRule {
    number: u32,
    exact: bool,
}

/// The owner of a path. All readings of the path must have the same service, public rule and `reading`.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'r> {
    pub service: &'r Service,
    /// The `[[public]]` rule that matches path and method.
    pub public: Option<&'r PublicSpec>,
    /// The prefix that matched.
    pub prefix: &'r str,
    /// Whether the method counts as reading on this path.
    pub reading: bool,
}

/// Why a path has no agreed owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disagreement {
    /// The literal path has an owner, and this reading has another or none.
    Reading(String),
    /// The path is not UTF-8, and its owner, if any, does not allow that.
    InvalidUtf8,
    /// Its short names may mean more directories than one request may look at.
    TooManyReadings,
}

/// An error in the rules. If two rules contradict each other, the message has the place of the first, and
/// `origin` is that of the second.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RuleError {
    pub message: String,
    pub origin: Origin,
}

/// The key of the built-in service: the admin listener, readable by `all-users`.
pub const BUILT_IN_SERVICE: &str = "permgate";

/// A prefix that no service may own.
pub const RESERVED_PREFIX: &str = "/.permgate";

/// The route of a path under the reserved prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuiltinRoute {
    /// `/.permgate/auth`, for forward-auth proxies. Envoy appends the original path.
    Auth,
    /// `/.permgate/whoami`
    Whoami,
    /// `/.permgate/jwks.json`
    Jwks,
    /// `/.permgate/registry`
    Registry,
    /// `/.permgate/rotate`
    Rotate,
    /// `/.permgate/token`
    Token,
    /// Any other path under the prefix: 404, but only after authentication.
    Unknown,
}

impl BuiltinRoute {
    /// Returns the route of a literal path, or `None` outside the prefix. A path that another reading (such
    /// as percent-decoding) would move into or out of the prefix is denied by the decision.
    pub fn of(path: &str) -> Option<Self> {
        match path.strip_prefix(RESERVED_PREFIX)? {
            "/auth" => Some(BuiltinRoute::Auth),
            rest if rest.starts_with("/auth/") => Some(BuiltinRoute::Auth),
            "/whoami" => Some(BuiltinRoute::Whoami),
            "/jwks.json" => Some(BuiltinRoute::Jwks),
            "/registry" => Some(BuiltinRoute::Registry),
            "/rotate" => Some(BuiltinRoute::Rotate),
            "/token" => Some(BuiltinRoute::Token),
            rest if rest.is_empty() || rest.starts_with('/') => Some(BuiltinRoute::Unknown),
            _ => None,
        }
    }
}

impl Rules {
    /// Compiles the rules and adds the built-in service. Returns every error, such as two owners of a host
    /// and prefix, or a public rule of an undefined service.
    pub fn compile(
        services: Vec<ServiceSpec>,
        public: Vec<PublicSpec>,
        settings: Settings,
        ids: &mut ServiceIds,
    ) -> Result<Self, Vec<RuleError>> {
        compile::compile(services, public, settings, ids)
    }

    /// Returns the owner on which all readings agree; `Ok(None)` if the literal path has none. `host` is in
    /// lower case, without port.
    pub fn owner<'r>(
        &'r self,
        path: &RequestPath<'_>,
        host: Option<&str>,
        method: &Method,
    ) -> Result<Option<Owner<'r>>, Disagreement> {
        let own = match host {
            Some(host) if !self.hosts.is_empty() => self.hosts.get(host.strip_suffix('.').unwrap_or(host)),
            _ => None,
        };
        let find = |path: &str, case: CaseMatching| self.find(own, path, case, method);
        let owner = find(path.literal(), CaseMatching::Exact);
        let allows = |owner: &Owner<'_>| owner.service.allow.contains(Allowance::InvalidUtf8);
        if !path.is_utf8() && !owner.as_ref().is_some_and(allows) {
            return Err(Disagreement::InvalidUtf8);
        }
        let Some(owner) = owner else { return Ok(None) };
        let agrees = |reading: &str, case: CaseMatching| {
            let same = find(reading, case).is_some_and(|other| owner.is_same(&other));
            if same { Ok(()) } else { Err(Disagreement::Reading(reading.to_owned())) }
        };
        let fold = !owner.service.allow.contains(Allowance::LetterCase);
        if fold && (self.capitals || path.has_capitals()) {
            agrees(path.literal(), CaseMatching::Folded)?;
        }
        for reading in path.readings().iter().filter(|r| !r.needs().intersects(owner.service.allow)) {
            agrees(reading.text(), CaseMatching::Exact)?;
            if fold {
                agrees(reading.text(), CaseMatching::Folded)?;
            }
        }
        // File systems that tell capitals apart have no short names.
        if fold {
            let (readings, mut work) = (path.readings().iter().map(Reading::text), Work::default());
            for short in readings.chain([path.literal()]).filter(|reading| reading.contains('~')) {
                for claims in own.into_iter().chain([&self.any_host]) {
                    let found = claims.directories.expand(short, &mut work)?;
                    for (directory, rest) in found.iter().filter(|(directory, _)| directory.is_prefix) {
                        work.spend(short_names::LOOKUP)?;
                        let slash = if rest.is_empty() { "" } else { "/" };
                        agrees(&[&directory.path, slash, rest].concat(), CaseMatching::Folded)?;
                    }
                }
            }
        }
        Ok(Some(owner))
    }

    /// Returns the services of an upstream with a prefix below one of these paths, in any of its readings.
    /// `hosts`: those of the request.
    pub fn below<'r>(
        &'r self,
        paths: &[&RequestPath<'_>],
        hosts: &[&str],
        upstream: &str,
    ) -> impl Iterator<Item = Owner<'r>> {
        let readings = paths.iter().flat_map(|path| {
            path.readings().iter().map(Reading::text).chain([path.literal()]).map(str::to_ascii_lowercase)
        });
        let mut parents: HashSet<String> =
            readings.map(|path| path.trim_end_matches('/').to_owned()).collect();
        // What cannot be read may stand for the root, and have everything below it.
        let long = self.directories(&parents, hosts).unwrap_or_else(|TooMuchWork| vec![String::new()]);
        parents.extend(long);
        let on_host = |spec: &ServiceSpec| {
            spec.hosts.is_empty() || compile::hosts(spec).any(|host| hosts.contains(&host))
        };
        let services =
            self.services.iter().filter(move |one| *one.spec.upstream == *upstream && on_host(&one.spec));
        services.filter_map(move |service| {
            let is_below = |prefix: &&String| {
                let lower = prefix.to_ascii_lowercase();
                lower != "/" && lower.match_indices('/').any(|(end, _)| parents.contains(&lower[..end]))
            };
            let prefix = service.spec.paths.iter().find(is_below)?;
            Some(Owner { service, public: None, prefix, reading: false })
        })
    }

    /// The directories of prefixes on these hosts for which some of the paths are short names.
    fn directories(&self, paths: &HashSet<String>, hosts: &[&str]) -> Result<Vec<String>, TooMuchWork> {
        let (mut work, mut all) = (Work::default(), Vec::new());
        for path in paths.iter().filter(|path| path.contains('~')) {
            for claims in hosts.iter().filter_map(|host| self.hosts.get(*host)).chain([&self.any_host]) {
                let found = claims.directories.expand(path, &mut work)?;
                let whole = found.iter().filter(|(_, rest)| rest.is_empty());
                all.extend(whole.map(|(directory, _)| directory.path.to_string()));
            }
        }
        Ok(all)
    }

    /// Whether a service lists this host, given in canonical form.
    pub fn lists_host(&self, host: &str) -> bool {
        self.services.iter().any(|service| service.spec.hosts.iter().any(|one| one == host))
    }

    /// Whether the path has the same owner on each of these hosts.
    pub fn is_owner_on(
        &self,
        owner: &Owner<'_>,
        path: &RequestPath<'_>,
        hosts: &[String],
        method: &Method,
    ) -> bool {
        let same = |host: &String| {
            self.owner(path, Some(host), method)
                .is_ok_and(|other| other.is_some_and(|other| owner.is_same(&other)))
        };
        // Hosts that no service lists have the same owners: one of them stands for all.
        let is_listed =
            |host: &&String| self.hosts.contains_key(host.strip_suffix('.').unwrap_or(host.as_str()));
        let unlisted = hosts.iter().find(|host| !is_listed(host));
        self.hosts.is_empty() || hosts.iter().filter(is_listed).chain(unlisted).all(same)
    }

    fn find<'r>(
        &'r self,
        own: Option<&'r HostClaims>,
        path: &str,
        case: CaseMatching,
        method: &Method,
    ) -> Option<Owner<'r>> {
        let longest = |claims: &'r HostClaims| {
            let mut claim: Option<&Claim> = None;
            claims.table.walk(path, case, |found, _| claim = found.as_ref().or(claim));
            claim
        };
        let claim = own.and_then(longest).or_else(|| longest(&self.any_host))?;
        let Claim::Service { service, prefix } = claim else { return None };
        let service = &self.services[*service as usize];
        Some(Owner {
            service,
            public: self.public_rule(service, path, case, method),
            prefix,
            reading: service.is_read(method, path, case),
        })
    }

    /// Returns the public rule with the longest path that matches path and method.
    fn public_rule(
        &self,
        service: &Service,
        path: &str,
        case: CaseMatching,
        method: &Method,
    ) -> Option<&PublicSpec> {
        let mut best = None;
        service.public.walk(path, case, |rules, whole| {
            let applies = |rule: &&PublicRule| {
                (whole || !rule.exact) && self.public[rule.number as usize].accepts_method(method)
            };
            best = rules.iter().find(applies).or(best);
        });
        best.map(|rule| &self.public[rule.number as usize])
    }

    /// Services in the order of the configuration, followed by the built-in one.
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    pub fn service(&self, id: ServiceId) -> Option<&Service> {
        let position = (*self.by_id.get(usize::from(id.0))?)?;
        self.services.get(position as usize)
    }

    pub fn service_by_key(&self, key: &str) -> Option<&Service> {
        self.services.get(*self.by_key.get(key)? as usize)
    }
}

impl From<Table<Option<Claim>>> for HostClaims {
    fn from(table: Table<Option<Claim>>) -> Self {
        Self { directories: Directories::of(table.prefixes()), table }
    }
}

impl From<TooMuchWork> for Disagreement {
    fn from(TooMuchWork: TooMuchWork) -> Self {
        Self::TooManyReadings
    }
}

impl Owner<'_> {
    /// Compares service, public rule and read rule. The prefix may differ: a service's prefixes are
    /// equivalent.
    fn is_same(&self, other: &Self) -> bool {
        let rule = |owner: &Self| owner.public.map(std::ptr::from_ref);
        self.service.id == other.service.id && rule(self) == rule(other) && self.reading == other.reading
    }
}

impl Service {
    /// The groups about which the upstream is told.
    pub fn identity_groups(&self) -> &[String] {
        self.spec.identity_groups.as_ref().unwrap_or(&self.spec.readers)
    }

    /// Whether the service accepts the method.
    pub fn accepts_method(&self, method: &Method) -> bool {
        self.spec.methods.as_ref().is_none_or(|methods| methods.contains(method))
    }

    fn is_read(&self, method: &Method, path: &str, case: CaseMatching) -> bool {
        self.spec.read_methods.iter().any(|read| {
            read.method == *method
                && read.prefix.as_ref().is_none_or(|prefix| matches_pattern(prefix, path, case))
        })
    }
}

impl PublicSpec {
    fn accepts_method(&self, method: &Method) -> bool {
        match &self.methods {
            Some(methods) => methods.contains(method),
            None => matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS),
        }
    }
}

#[cfg(test)]
mod tests;
