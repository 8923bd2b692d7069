//! A minimal service as the configuration would create it, with an upstream of the same name.

use http::Method;
use permgate::authz::rules::{Authorization, Identity, Origin, ReadMethod, ServiceKey, ServiceSpec};

/// A service with these prefixes and readers; only GET reads.
pub fn service(key: &str, paths: &[&str], readers: &[&str]) -> ServiceSpec {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    ServiceSpec {
        key: ServiceKey::parse(key).expect("a lower-case word"),
        title: String::new(),
        about: String::new(),
        upstream: key.into(),
        paths: owned(paths),
        hosts: Vec::new(),
        readers: owned(readers),
        methods: None,
        read_methods: vec![ReadMethod { method: Method::GET, prefix: None }],
        authorization: Authorization::Strip,
        credentials: permgate::authz::carriers::Carriers::BEARER,
        registry: false,
        identity: Identity::Headers,
        identity_groups: None,
        allow: Vec::new(),
        fields: Default::default(),
        max_body: None,
        origin: Origin { file: "gateway.toml".into(), line: 1 },
    }
}
