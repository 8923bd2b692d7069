//! Services and public rules, compiled to a prefix table: host + longest prefix owns a path.

use std::collections::HashMap;

use http::{HeaderValue, Method};

use crate::authz::path::RequestPath;

pub use credentials::HostCarriers;
use credentials::HostCredentials;
pub use spec::{
    Allowance, Allowances, Authorization, Identity, Origin, PublicPath, PublicSpec, ReadMethod, Secret,
    ServiceId, ServiceIds, ServiceKey, ServiceSpec, Settings,
};
use table::{Letters, Table, fits};

mod compile;
mod credentials;
mod spec;
mod table;

/// A service as compiled.
#[derive(Clone, Debug)]
pub struct Service {
    pub id: ServiceId,
    pub spec: ServiceSpec,
    /// The key as a field value, so that no request has to make one.
    pub key_value: HeaderValue,
    allow: Allowances,
    /// Its public rules: where they apply, by number.
    public: Table<Vec<PublicRule>>,
}

/// All rules, immutable; replaced as a whole by a reload.
#[derive(Debug)]
pub struct Rules {
    services: Vec<Service>,
    public: Vec<PublicSpec>,
    pub settings: Settings,
    /// By [`ServiceId`].
    by_id: Vec<Option<u32>>,
    by_key: HashMap<ServiceKey, u32>,
    /// Services without `hosts`.
    any_host: Table<Option<Claim>>,
    /// A named host's own services come first, whatever the length of the prefixes.
    hosts: HashMap<Box<str>, Table<Option<Claim>>>,
    /// Some prefix has capitals: then lower-case paths are looked up folded as well.
    capitals: bool,
    /// `None`: every service has the default, `Authorization: Bearer`.
    host_credentials: Option<Box<HostCredentials>>,
}

/// Who holds a prefix.
#[derive(Clone, Debug)]
enum Claim {
    Service {
        service: u32,
        prefix: Box<str>,
    },
    /// `/.permgate`: nobody's, whoever owns `/`.
    Reserved,
}

#[derive(Clone, Copy, Debug)]
struct PublicRule {
    number: u32,
    exact: bool,
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

/// Why nobody can be said to own a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disagreement {
    /// The literal path has an owner and another reading lands elsewhere.
    Reading(String),
    /// It is not UTF-8, and no owner allows that.
    InvalidUtf8,
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

/// A prefix that no service may own.
pub const RESERVED_PREFIX: &str = "/.permgate";

impl Rules {
    /// Compiles, or tells every contradiction (a host + prefix with two owners, an unknown service
    /// in a public rule, the built-in key). The built-in service is added by itself.
    pub fn compile(
        services: Vec<ServiceSpec>,
        public: Vec<PublicSpec>,
        settings: Settings,
        ids: &mut ServiceIds,
    ) -> Result<Self, Vec<RuleError>> {
        compile::compile(services, public, settings, ids)
    }

    /// The owner by agreement of all readings; `Ok(None)`: the literal path has none. `host` is in
    /// lower case and without port.
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
        let find = |path: &str, letters: Letters| self.find(own, path, letters, method);
        let owner = find(path.literal(), Letters::Exact);
        let allows = |owner: &Owner<'_>| owner.service.allow.contains(Allowance::InvalidUtf8);
        if !path.is_utf8() && !owner.as_ref().is_some_and(allows) {
            return Err(Disagreement::InvalidUtf8);
        }
        let Some(owner) = owner else { return Ok(None) };
        let agrees = |reading: &str, letters: Letters| {
            let same = find(reading, letters).is_some_and(|other| owner.is_same(&other));
            if same { Ok(()) } else { Err(Disagreement::Reading(reading.to_owned())) }
        };
        let fold = !owner.service.allow.contains(Allowance::LetterCase);
        if fold && (self.capitals || path.has_capitals()) {
            agrees(path.literal(), Letters::Folded)?;
        }
        for reading in path.readings().iter().filter(|r| !r.needs().intersects(owner.service.allow)) {
            agrees(reading.text(), Letters::Exact)?;
            if fold {
                agrees(reading.text(), Letters::Folded)?;
            }
        }
        Ok(Some(owner))
    }

    /// Whether a service lists this host, in its canonical form.
    pub fn names_host(&self, host: &str) -> bool {
        self.services.iter().any(|service| service.spec.hosts.iter().any(|one| one == host))
    }

    /// Whether a path belongs to the same owner on these hosts, too.
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
        self.hosts.is_empty() || hosts.iter().all(same)
    }

    fn find<'r>(
        &'r self,
        own: Option<&'r Table<Option<Claim>>>,
        path: &str,
        letters: Letters,
        method: &Method,
    ) -> Option<Owner<'r>> {
        let longest = |claims: &'r Table<Option<Claim>>| {
            let mut claim: Option<&Claim> = None;
            claims.walk(path, letters, |found, _| claim = found.as_ref().or(claim));
            claim
        };
        let claim = own.and_then(longest).or_else(|| longest(&self.any_host))?;
        let Claim::Service { service, prefix } = claim else { return None };
        let service = &self.services[*service as usize];
        Some(Owner {
            service,
            public: self.public_rule(service, path, letters, method),
            prefix,
            reading: service.reads(method, path, letters),
        })
    }

    /// The longest public rule for path and method.
    fn public_rule(
        &self,
        service: &Service,
        path: &str,
        letters: Letters,
        method: &Method,
    ) -> Option<&PublicSpec> {
        let mut best = None;
        service.public.walk(path, letters, |rules, whole| {
            let fits = |rule: &&PublicRule| {
                (whole || !rule.exact) && self.public[rule.number as usize].takes(method)
            };
            best = rules.iter().find(fits).or(best);
        });
        best.map(|rule| &self.public[rule.number as usize])
    }

    /// In the order of the configuration, the built-in one last.
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

impl Owner<'_> {
    /// The service, the public rule and the read rule; not the prefix, since one service's
    /// prefixes are alike.
    fn is_same(&self, other: &Self) -> bool {
        let rule = |owner: &Self| owner.public.map(std::ptr::from_ref);
        self.service.id == other.service.id && rule(self) == rule(other) && self.reading == other.reading
    }
}

impl Service {
    /// Groups that the upstream is told of.
    pub fn identity_groups(&self) -> &[String] {
        self.spec.identity_groups.as_ref().unwrap_or(&self.spec.readers)
    }

    /// Whether the service takes the method at all.
    pub fn takes(&self, method: &Method) -> bool {
        self.spec.methods.as_ref().is_none_or(|methods| methods.contains(method))
    }

    fn reads(&self, method: &Method, path: &str, letters: Letters) -> bool {
        self.spec.read_methods.iter().any(|read| {
            read.method == *method && read.prefix.as_ref().is_none_or(|prefix| fits(prefix, path, letters))
        })
    }
}

impl PublicSpec {
    fn takes(&self, method: &Method) -> bool {
        match &self.methods {
            Some(methods) => methods.contains(method),
            None => matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS),
        }
    }
}

#[cfg(test)]
mod tests;
