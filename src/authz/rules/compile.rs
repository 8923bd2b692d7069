//! Compiles configured rules into tables, and reports every contradiction with both places.

use std::collections::{HashMap, HashSet};

use http::{HeaderValue, Method};

use super::{
    Allowance, Allowances, Authorization, BUILT_IN_SERVICE, Claim, HostCredentials, Identity, Origin,
    PublicPath, PublicRule, PublicSpec, RESERVED_PREFIX, ReadMethod, RuleError, Rules, Service, ServiceId,
    ServiceIds, ServiceKey, ServiceSpec, Settings,
    table::{CaseMatching, Table, covers},
};
use crate::authz::{carriers::Carriers, forwarding::FieldPattern, path::RequestPath};

pub fn compile(
    specs: Vec<ServiceSpec>,
    public: Vec<PublicSpec>,
    settings: Settings,
    ids: &mut ServiceIds,
) -> Result<Rules, Vec<RuleError>> {
    let mut errors = Vec::new();
    check_services(&specs, &mut errors);
    check_claims(&specs, &mut errors);
    check_public(&specs, &public, &mut errors);
    let mut public_of: HashMap<&ServiceKey, Vec<(u32, &PublicSpec)>> = HashMap::new();
    for (number, rule) in (0..).zip(&public) {
        public_of.entry(&rule.service).or_default().push((number, rule));
    }
    let mut services = Vec::with_capacity(specs.len() + 1);
    for spec in specs.into_iter().chain([built_in()]) {
        match ids.intern(&spec.key) {
            Some(id) => {
                let public = public_of.get(&spec.key).map_or(&[][..], Vec::as_slice);
                services.push(service(id, spec, public));
            }
            None => errors.push(RuleError {
                message: "too many different service keys were used since permgate was started: restart it"
                    .to_owned(),
                origin: spec.origin,
            }),
        }
    }
    if errors.is_empty() { Ok(tables(services, public, settings)) } else { Err(errors) }
}

/// Checks each service on its own.
fn check_services(specs: &[ServiceSpec], errors: &mut Vec<RuleError>) {
    let mut seen: HashMap<&ServiceKey, &Origin> = HashMap::new();
    for spec in specs {
        let mut error = |message: String| errors.push(RuleError { message, origin: spec.origin.clone() });
        let key = &spec.key;
        if key.as_str() == BUILT_IN_SERVICE {
            error(format!("the service \"{key}\" is built in: choose another key"));
        }
        if let Some(first) = seen.insert(key, &spec.origin) {
            error(format!("the service \"{key}\" is defined twice, first at {first}"));
        }
        if !(1..=32).contains(&spec.paths.len()) {
            error(format!("the service \"{key}\" must have 1 to 32 paths, not {}", spec.paths.len()));
        }
        for prefix in &spec.paths {
            if let Err(why) = check_prefix(prefix) {
                error(format!("the path \"{prefix}\" of the service \"{key}\" {why}"));
            } else if covers(RESERVED_PREFIX, prefix, CaseMatching::Folded) {
                error(format!("the path \"{prefix}\" of the service \"{key}\" is reserved for permgate"));
            }
        }
        for prefix in spec.read_methods.iter().filter_map(|read| read.prefix.as_ref()) {
            if let Err(why) = check_prefix(prefix.strip_prefix('*').unwrap_or(prefix)) {
                error(format!("the prefix \"{prefix}\" in read_methods of the service \"{key}\" {why}"));
            }
        }
    }
}

/// A prefix must have only one reading: otherwise no path below it has an agreed owner.
fn check_prefix(prefix: &str) -> Result<(), &'static str> {
    if prefix.len() > 1 && prefix.ends_with('/') {
        return Err("must not end with \"/\"");
    }
    match RequestPath::parse(prefix) {
        Ok(path) if path.readings().is_empty() => Ok(()),
        _ => Err("must be absolute and plain: letters, digits and -_~:@!$&'()*+,=. without escapes, \
                  parameters, empty or dot segments"),
    }
}

/// Refuses two services with the same host and prefix, or with prefixes that differ only in letter case:
/// every path below them would be ambiguous.
fn check_claims(specs: &[ServiceSpec], errors: &mut Vec<RuleError>) {
    let mut seen: HashMap<(&str, String), (&ServiceSpec, &str)> = HashMap::new();
    for spec in specs {
        for (host, prefix) in hosts(spec).flat_map(|host| spec.paths.iter().map(move |prefix| (host, prefix)))
        {
            let Some((first, as_written)) = seen.insert((host, prefix.to_ascii_lowercase()), (spec, prefix))
            else {
                continue;
            };
            let tolerant = [first, spec].iter().all(|s| s.allow.contains(&Allowance::LetterCase));
            if first.key == spec.key || as_written != prefix && tolerant {
                continue;
            }
            let (one, other) = (&first.key, &spec.key);
            let host = if host.is_empty() { String::new() } else { format!(" on the host \"{host}\"") };
            let message = if as_written == prefix {
                format!(
                    "the path \"{prefix}\"{host} belongs to \"{other}\" and to \"{one}\" at {}",
                    first.origin
                )
            } else {
                format!(
                    "the paths \"{prefix}\" of \"{other}\" and \"{as_written}\" of \"{one}\" at {}{host} \
                     differ only in letter case: choose others, or set `allow = [\"letter-case\"]` in both \
                     services",
                    first.origin
                )
            };
            errors.push(RuleError { message, origin: spec.origin.clone() });
        }
    }
}

fn check_public(specs: &[ServiceSpec], public: &[PublicSpec], errors: &mut Vec<RuleError>) {
    let by_key: HashMap<&ServiceKey, &ServiceSpec> = specs.iter().map(|spec| (&spec.key, spec)).collect();
    for rule in public {
        let mut error = |message: String| errors.push(RuleError { message, origin: rule.origin.clone() });
        let (path, sound) = match &rule.path {
            PublicPath::Prefix(path) => (path, check_prefix(path)),
            PublicPath::Exact(path) => {
                (path, check_prefix(path.strip_suffix('/').filter(|p| !p.is_empty()).unwrap_or(path)))
            }
        };
        if let Err(why) = sound {
            error(format!("the public path \"{path}\" {why}"));
        }
        let Some(service) = by_key.get(&rule.service) else {
            error(format!("a public rule names the service \"{}\", which does not exist", rule.service));
            continue;
        };
        let is_prefix = matches!(rule.path, PublicPath::Prefix(_));
        let reaches = |prefix: &String| {
            covers(prefix, path, CaseMatching::Exact)
                || is_prefix && covers(path, prefix, CaseMatching::Exact)
        };
        if !service.paths.iter().any(reaches) {
            error(format!(
                "the public path \"{path}\" is not below any path of the service \"{}\" at {}",
                service.key, service.origin
            ));
        }
    }
}

/// `public`: the service's public rules, with their numbers.
fn service(id: ServiceId, spec: ServiceSpec, public: &[(u32, &PublicSpec)]) -> Service {
    let mut rules = Table::<Vec<PublicRule>>::default();
    for &(number, rule) in public {
        match &rule.path {
            PublicPath::Exact(path) => {
                rules.change_path(path, |rules| rules.push(PublicRule { number, exact: true }));
            }
            PublicPath::Prefix(prefix) => {
                rules.change_prefix(prefix, |rules| rules.push(PublicRule { number, exact: false }));
            }
        }
    }
    // A field that carries tokens must not reach the upstream as a trailer either.
    let carriers = spec.credentials.headers.iter().filter_map(|name| FieldPattern::parse(name.as_str()));
    let carriers: Vec<_> = carriers.collect();
    let mut spec = spec;
    if !carriers.is_empty() {
        spec.fields.drop = spec.fields.drop.iter().cloned().chain(carriers).collect();
    }
    let allow = spec.allow.iter().fold(Allowances::NONE, |set, allowance| set.with(*allowance));
    let key_value = HeaderValue::from_str(spec.key.as_str()).expect("a service key is ASCII");
    Service { id, spec, key_value, allow, public: rules }
}

fn tables(services: Vec<Service>, public: Vec<PublicSpec>, settings: Settings) -> Rules {
    let mut any_host = with_reserved();
    let mut hosts_of = HashMap::<Box<str>, Table<Option<Claim>>>::new();
    let (mut by_id, mut by_key) = (Vec::new(), HashMap::new());
    for (position, service) in (0..).zip(&services) {
        let id = usize::from(service.id.0);
        by_id.resize(by_id.len().max(id + 1), None);
        by_id[id] = Some(position);
        by_key.insert(service.spec.key.clone(), position);
        for host in hosts(&service.spec) {
            let table = if host.is_empty() {
                &mut any_host
            } else {
                hosts_of.entry(host.into()).or_insert_with(with_reserved)
            };
            for prefix in &service.spec.paths {
                let claim = Claim::Service { service: position, prefix: prefix.as_str().into() };
                table.change_prefix(prefix, |held| *held = Some(claim.clone()));
            }
        }
    }
    let prefixes = services.iter().flat_map(|service| {
        let read = service.spec.read_methods.iter().filter_map(|read| read.prefix.as_deref());
        service.spec.paths.iter().map(String::as_str).chain(read)
    });
    let written: HashSet<&str> = prefixes.chain(public.iter().map(|rule| rule.path.text())).collect();
    let capitals = written.iter().any(|path| path.bytes().any(|b| b.is_ascii_uppercase()));
    let host_credentials = HostCredentials::from_services(&services).map(Box::new);
    let any_host = any_host.into();
    let hosts = hosts_of.into_iter().map(|(host, table)| (host, table.into())).collect();
    Rules { services, public, settings, by_id, by_key, any_host, hosts, capitals, host_credentials }
}

fn with_reserved() -> Table<Option<Claim>> {
    let mut table = Table::<Option<Claim>>::default();
    table.change_prefix(RESERVED_PREFIX, |claim| *claim = Some(Claim::Reserved));
    table
}

/// The hosts of a service, without a final dot; the empty host stands for any.
pub(super) fn hosts(spec: &ServiceSpec) -> impl Iterator<Item = &str> {
    let any = spec.hosts.is_empty().then_some("");
    any.into_iter().chain(spec.hosts.iter().map(|host| host.strip_suffix('.').unwrap_or(host)))
}

/// The admin listener as a service. It owns no path on the proxy listener.
fn built_in() -> ServiceSpec {
    let reading = [Method::GET, Method::HEAD, Method::OPTIONS];
    ServiceSpec {
        key: ServiceKey(BUILT_IN_SERVICE.into()),
        title: "permgate".to_owned(),
        about: "Users, groups and permanent tokens".to_owned(),
        upstream: "".into(),
        paths: Vec::new(),
        hosts: Vec::new(),
        readers: vec!["all-users".to_owned()],
        methods: None,
        read_methods: reading.map(|method| ReadMethod { method, prefix: None }).into(),
        authorization: Authorization::Strip,
        credentials: Carriers::BEARER,
        registry: false,
        identity: Identity::None,
        identity_groups: None,
        allow: Vec::new(),
        fields: Default::default(),
        max_body: None,
        origin: Origin { file: "built in".into(), line: 0 },
    }
}

impl PublicPath {
    fn text(&self) -> &str {
        match self {
            PublicPath::Exact(path) | PublicPath::Prefix(path) => path,
        }
    }
}
