//! Chooses the credential that counts for a request by the service that owns the path, and says what the
//! services of a host accept. The latter does not depend on the path, so that outsiders cannot enumerate
//! prefixes.

use std::collections::HashMap;

use http::Method;

use super::{Rules, Service};
use crate::authz::{
    carriers::{Carried, Carriers},
    decide::Credential,
    path::RequestPath,
};

/// What the services of each host accept.
#[derive(Clone, Debug)]
pub(super) struct HostCredentials {
    /// What any service accepts, and is therefore read from a request.
    all: Carriers,
    /// What services without `hosts` accept.
    any_host: HostCarriers,
    /// By host; each includes `any_host`.
    hosts: HashMap<Box<str>, HostCarriers>,
}

/// What the services of one host accept together.
#[derive(Clone, Debug)]
pub struct HostCarriers {
    /// The carriers that the services accept, and those that the gateway's own routes accept on the host:
    /// `bearer`, and `basic` if there is a registry.
    pub carriers: Carriers,
    /// Whether a service accepts `bearer`; the gateway's own routes do not count.
    pub bearer: bool,
    /// The same for `basic`.
    pub basic: bool,
    /// Whether one of the services is a container registry.
    pub registry: bool,
}

impl HostCredentials {
    /// `None` if every service has the default.
    pub(super) fn from_services(services: &[Service]) -> Option<Self> {
        // The last service is the built-in one, which owns no path.
        let is_default =
            |service: &Service| service.spec.credentials == Carriers::BEARER && !service.spec.registry;
        if services.iter().all(is_default) {
            return None;
        }
        let none = HostCarriers { carriers: Carriers::BEARER, bearer: false, basic: false, registry: false };
        let (mut all, mut any_host, mut hosts) = (Carriers::BEARER, none.clone(), HashMap::new());
        for Service { spec, .. } in services.iter().filter(|service| !service.spec.paths.is_empty()) {
            spec.credentials.iter().for_each(|carrier| all.insert(carrier));
            let Carriers { bearer, basic, .. } = spec.credentials;
            let mut carriers = spec.credentials.clone();
            carriers.basic |= spec.registry;
            all.basic |= spec.registry;
            let own = HostCarriers { carriers, bearer, basic, registry: spec.registry };
            if spec.hosts.is_empty() {
                any_host.add(&own);
            }
            for host in super::compile::hosts(spec).filter(|host| !host.is_empty()) {
                let host: &mut HostCarriers = hosts.entry(host.into()).or_insert_with(|| none.clone());
                host.add(&own);
            }
        }
        hosts.values_mut().for_each(|host| host.add(&any_host));
        Some(Self { all, any_host, hosts })
    }
}

impl HostCarriers {
    fn add(&mut self, other: &Self) {
        other.carriers.iter().for_each(|carrier| self.carriers.insert(carrier));
        self.bearer |= other.bearer;
        self.basic |= other.basic;
        self.registry |= other.registry;
    }
}

impl Rules {
    /// What must be read from a request besides `Authorization: Bearer`; `None`: nothing.
    pub fn carriers(&self) -> Option<&Carriers> {
        self.host_credentials.as_ref().map(|host_credentials| &host_credentials.all)
    }

    /// What the services of a host accept; `None` if every service has the default.
    pub fn carriers_on(&self, host: Option<&str>) -> Option<&HostCarriers> {
        let host_credentials = self.host_credentials.as_ref()?;
        let named = host.and_then(|host| host_credentials.hosts.get(host.strip_suffix('.').unwrap_or(host)));
        Some(named.unwrap_or(&host_credentials.any_host))
    }

    /// Returns the credential that counts for the owner of a path, and its position in `others`, which is
    /// `None` for `Authorization: Bearer` or no credential.
    pub fn credential(
        &self,
        path: Option<&RequestPath<'_>>,
        host: Option<&str>,
        method: &Method,
        authorization: Credential,
        others: &[Carried],
    ) -> (Credential, Option<usize>) {
        let Some(on_host) = self.carriers_on(host) else { return (authorization, None) };
        let owner = path.and_then(|path| self.owner(path, host, method).ok().flatten());
        let absent = match owner {
            Some(owner) => {
                let chosen = owner.service.spec.credentials.choose(authorization, others);
                // A public rule makes its path known anyway, so the response may depend on the path.
                if !chosen.0.is_absent() || owner.public.is_some() {
                    return chosen;
                }
                chosen
            }
            None => (authorization, None),
        };
        match on_host.carriers.choose(authorization, others) {
            (Credential::Bearer { form, digest } | Credential::Carried { form, digest, .. }, at) => {
                (Credential::Elsewhere { form, digest }, at)
            }
            (credential, _) if credential.is_absent() => absent,
            chosen => chosen,
        }
    }
}
