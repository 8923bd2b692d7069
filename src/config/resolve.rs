//! Turns the text into a [`Config`], in stages: TOML, shape, values, contradictions between rules. Each stage
//! takes what the previous one could read, so that one run reports everything.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    ffi::OsString,
    num::{NonZeroU32, NonZeroUsize},
    ops::Range,
    path::Path,
    sync::Arc,
};

use ipnet::IpNet;
use toml::de::DeTable;

use super::{
    Admin, Budgets, Config, Errors, Log, Server,
    address::{self, Listen, Scheme, is_local, network},
    admin, assertion, cluster,
    document::{Diagnostics, Document, References},
    environment::Overrides,
    exchange, key,
    section::{Section, SpannedText, wrong},
    service, shape, tls, upstream,
};
use crate::{
    authz::{
        forwarding::TrustedProxies,
        rules::{PublicSpec, Rules, ServiceIds, ServiceSpec, Settings as RuleSettings},
    },
    metrics,
    net::{self, Address},
    proxy::access_log::LogTarget,
    settings::{BadTokenLimit, FrontProxy, ProxySettings, UpstreamSettings, UpstreamUrl},
    store,
};

pub(super) fn parse(text: &str, path: &Path, references: References) -> Result<Config, Errors> {
    let variables = match references {
        References::Read => Some(std::env::vars_os()),
        References::Ignored => None,
    };
    parse_with(text, path, references, variables.into_iter().flatten())
}

/// Like [`parse`], with these environment variables.
pub(super) fn parse_with(
    text: &str,
    path: &Path,
    references: References,
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Config, Errors> {
    let overrides = Overrides::read(variables, text.len());
    let document = Document::new(path, text, &overrides, references);
    let (mut table, syntax) = DeTable::parse_recoverable(text);
    for error in &syntax {
        let at = error.span().unwrap_or(0..0);
        document.error(&at, format!("this is not TOML: {}", error.message()), "");
    }
    let broken = syntax.len();
    overrides.merge(table.get_mut(), &document);
    shape::check(&document, &key::ROOT, table.get_ref(), &(0..0), "");
    document.drop_consequences(broken);

    let root = Section::new(&document, &key::ROOT, Some(table.get_ref()), 0..0);
    let config = if broken == 0 && !document.is_full() { resolve(&root, path) } else { None };
    let Diagnostics { errors, exposed_secrets, mut warnings } = document.into_diagnostics();
    match config {
        Some(config) if errors.is_empty() => {
            let environment = overrides.descriptions(table.get_ref());
            warnings.extend(overrides.mistaken.iter().cloned());
            Ok(Config { text: text.to_owned(), environment, exposed_secrets, warnings, ..config })
        }
        _ => Err(Errors(errors)),
    }
}

/// `None` if something essential is missing, which has been reported.
fn resolve(root: &Section<'_>, path: &Path) -> Option<Config> {
    let server_section = root.table("server");
    let trusted_proxies = trusted_proxies(&server_section);
    let server = server(root, &trusted_proxies)?;
    let admin = admin::admin(root, &server);
    check_distinct_addresses(root, &server, &admin);
    let tokens = root.table("tokens");
    let rules = RuleSettings { perm_alias: tokens.flag("perm_alias"), trusted_proxies };

    let written = root.named_tables("upstream");
    let upstream_names = names(&written);
    let upstreams: Vec<Option<UpstreamSettings>> =
        written.iter().map(|(name, section)| upstream::upstream(name, section)).collect();
    for ((_, section), upstream) in written.iter().zip(&upstreams) {
        let listen = server.listen.iter().chain(&admin.listen).map(|listen| &listen.address);
        let listen: Vec<_> = listen.chain(admin.metrics.separate_listener()).collect();
        let own = |url: &&UpstreamUrl| upstream::is_own_address(url, &listen);
        if let Some(one) = upstream.iter().flat_map(|one| &one.urls).map(|one| &one.url).find(own) {
            let message = format!("{one} is an address that this gateway listens on: requests would loop");
            section.error("urls", message, "name the server behind permgate");
        }
    }

    let dropped = service::dropped(&server_section);
    let written_services = root.named_tables("service");
    let service_names = names(&written_services);
    let services: Vec<_> = written_services
        .iter()
        .take_while(|_| !root.document.is_full())
        .map(|(name, section)| service::service(name, section, &upstream_names, &dropped))
        .collect();
    let written_public = root.tables("public");
    let public: Vec<_> = written_public
        .iter()
        .take_while(|_| !root.document.is_full())
        .map(|section| service::public(section, &service_names))
        .collect();
    let by_key: HashMap<_, _> = services.iter().flatten().map(|service| (&service.key, service)).collect();
    for (section, rule) in written_public.iter().zip(&public) {
        let of = |rule: &PublicSpec| by_key.get(&rule.service);
        if let Some((rule, service)) = rule.as_ref().and_then(|rule| Some((rule, of(rule)?))) {
            service::warn_of_risks(section, rule, service);
        }
    }
    warn_of_unused(root, &written, &services);

    let sound_services: Vec<_> = services.iter().flatten().cloned().collect();
    // The rule of a service with errors would be reported as one of an unknown service.
    let sound_public: Vec<_> =
        public.iter().flatten().filter(|rule| by_key.contains_key(&rule.service)).cloned().collect();
    let (specs, public_specs) = (sound_services.clone(), sound_public.clone());
    let compiled = Rules::compile(specs, public_specs, rules.clone(), &mut ServiceIds::default());
    for error in compiled.err().into_iter().flatten() {
        root.document.error_at(&error.origin, error.message);
    }

    let exchange: Vec<_> = root
        .named_tables("exchange")
        .iter()
        .map(|(name, section)| exchange::rule(name, section, &sound_services))
        .collect();

    let store_section = root.table("store");
    let store_path = store_section.parsed("path", |text| match text {
        "" => wrong("`store.path` is empty", "name a directory"),
        text => Ok(root.document.directory.join(text)),
    })?;
    let assertion = assertion::assertion(root, &sound_services, &store_path);
    let cluster = cluster::cluster(&store_section, assertion.as_ref(), &admin.sign_in);
    Some(Config {
        file: path.to_owned(),
        text: String::new(),
        environment: Vec::new(),
        server,
        admin,
        store: store::Settings { path: store_path, ballast: store_section.size("ballast")? },
        cluster,
        policy: store::Policy {
            max_lifetime: tokens.duration("max_lifetime"),
            max_tokens: tokens.count("max_per_user")?,
            audit_retention: store_section.duration("audit_retention"),
            reserved_logins: admin::reserved_logins(&root.table("admin")),
            write_rate: admin::write_rate(&root.table("admin"))?,
            ..store::Policy::default()
        },
        proxy: ProxySettings {
            upstreams: upstreams.into_iter().flatten().map(|u| (u.name.clone(), Arc::new(u))).collect(),
            max_body: server_section.size("max_body"),
            forward_auth: forward_auth(root, &rules.trusted_proxies),
            bad_tokens: root.optional_table("limiter").and_then(|section| bad_token_limit(&section)),
            limits: super::limits::limits(root, &written_services, &sound_services),
            self_rotation: tokens.flag("self_rotation"),
            announce_end: tokens.duration("announce_end"),
            exchange: exchange.into_iter().flatten().map(Arc::new).collect(),
        },
        assertion,
        services: sound_services,
        public: sound_public,
        rules,
        log: log(&root.table("log"))?,
        metrics: metrics(&root.table("metrics")),
        exposed_secrets: Vec::new(),
        warnings: Vec::new(),
    })
}

fn names<'n>(tables: &'n [(SpannedText<'_>, Section<'_>)]) -> BTreeSet<&'n str> {
    tables.iter().map(|(name, _)| name.value.as_str()).collect()
}

fn server(root: &Section<'_>, trusted_proxies: &TrustedProxies) -> Option<Server> {
    let section = &root.table("server");
    let listen = listen(section);
    let tls = tls::resolve(section);
    let certificates = section.is_set("tls");
    let plain = |listen: &Listen| !is_local(&listen.address) && !listen.uses_tls(certificates);
    for (Listen { address, .. }, at) in listen.iter().filter(|(listen, _)| plain(listen)) {
        let message = format!("{address} accepts tokens in plain text from other machines");
        let advice = if certificates { "write \"https://IP:PORT\"" } else { "set `server.tls`" };
        section.document.warn(at, message, format!("{advice}, or terminate TLS in front of it"));
    }
    let proxy_protocol = section.text("proxy_protocol").is_some_and(|word| word.value == "required");
    if proxy_protocol && trusted_proxies.is_empty() {
        let advice = "name the proxies in `trusted_proxies`: only they may send the header";
        section.error("proxy_protocol", "`proxy_protocol` needs a trusted proxy", advice);
    }
    let unix_mode = section.parsed("unix_mode", address::mode).unwrap_or(0o600);
    if trusted_proxies.unix && unix_mode & 0o002 != 0 {
        let advice = "take 2 from the last digit of the mode, or \"unix\" out of `trusted_proxies`";
        section.warn("unix_mode", "every user of this machine is a trusted proxy", advice);
    }
    if section.is_set("unix_mode") && !listen.iter().any(|(one, _)| matches!(one.address, Address::Unix(_))) {
        section.warn("unix_mode", "`unix_mode` has no effect: no address of `listen` is a unix socket", "");
    }
    Some(Server {
        unix_mode,
        proxy_protocol,
        listen: listen.into_iter().map(|(listen, _)| listen).collect(),
        tls,
        workers: section.count("workers").and_then(NonZeroUsize::new),
        drain_delay: section.duration("drain_delay")?,
        drain: section.duration("drain")?,
        limits: net::Limits { trusted_proxies: trusted_proxies.clone(), ..limits(section)? },
        budgets: budgets(root),
    })
}

/// The proxy's report of the original request is trusted, so at least one proxy must be.
fn forward_auth(root: &Section<'_>, trusted_proxies: &TrustedProxies) -> Option<FrontProxy> {
    let section = root.optional_table("forward_auth")?;
    if trusted_proxies.is_empty() {
        let message = "`forward_auth` needs `server.trusted_proxies`";
        let advice = "name the addresses of the proxy, such as [\"127.0.0.1\"]";
        root.error("forward_auth", message, advice);
    }
    section.word("proxy")
}

pub(super) fn trusted_proxies(server: &Section<'_>) -> TrustedProxies {
    let (unix, networks): (Vec<_>, Vec<_>) =
        server.texts("trusted_proxies").into_iter().partition(|text| text.value == "unix");
    let networks = networks.iter().filter_map(proxies).collect();
    TrustedProxies { networks, unix: !unix.is_empty() }
}

/// A network of proxies.
pub(super) fn proxies(text: &SpannedText<'_>) -> Option<IpNet> {
    let net = text.parse(network)?;
    if net.prefix_len() == 0 {
        let message =
            format!("every address in {net} is a trusted proxy: clients say themselves who they are");
        text.warn(message, "name the addresses of the proxies");
    }
    Some(net)
}

fn budgets(root: &Section<'_>) -> Budgets {
    let (section, admin) = (root.table("server").table("budgets"), root.table("admin"));
    let bytes = |section: &Section<'_>, name| section.size(name).and_then(|size| usize::try_from(size).ok());
    Budgets {
        upstream_connections: section.count("upstream_connections"),
        streams: section.count("streams"),
        tunnels: section.count("tunnels"),
        send_buffers: bytes(&section, "send_buffers"),
        receive_buffers: bytes(&section, "receive_buffers"),
        admin_connections: admin.count("connections"),
        bodies: bytes(&admin, "bodies"),
    }
}

fn limits(server: &Section<'_>) -> Option<net::Limits> {
    let (limits, timeouts) = (server.table("limits"), server.table("timeouts"));
    let bytes = |name| usize::try_from(limits.size(name)?).ok();
    let resolved = net::Limits {
        head: bytes("head")?,
        field: bytes("field")?,
        fields: limits.count("fields")?,
        target: bytes("target")?,
        connections: limits.count("connections")?,
        trusted_proxies: TrustedProxies::default(),
        connections_per_address: limits.count("connections_per_address"),
        head_timeout: timeouts.duration("head")?,
        tls_handshake_timeout: timeouts.duration("tls_handshake")?,
        idle_timeout: timeouts.duration("idle")?,
        body_timeout: timeouts.duration("body")?,
        write_timeout: timeouts.duration("write")?,
        ping: timeouts.duration("ping")?,
    };
    for (name, part) in [("field", resolved.field), ("target", resolved.target)] {
        if part > resolved.head {
            limits.error(name, format!("`{name}` is larger than `head`, which includes it"), "");
        }
    }
    Some(resolved)
}

/// The listen addresses, with their spans.
pub(super) fn listen(section: &Section<'_>) -> Vec<(Listen, Range<usize>)> {
    let texts = section.texts("listen");
    if texts.is_empty() {
        section.error("listen", "`listen` is empty", "name at least one address");
    }
    let read = |text: &str| address::listen(text, section.document.directory);
    let listen: Vec<_> = texts.iter().filter_map(|text| Some((text.parse(read)?, text.at.clone()))).collect();
    let certificates = section.is_set("tls");
    let secure = listen.iter().filter(|(listen, _)| listen.scheme == Some(Scheme::Https));
    for (Listen { address, .. }, at) in secure.filter(|_| !certificates) {
        let message = format!("https://{address} has no certificate");
        section.document.error(at, message, "set `tls` in the same table");
    }
    if certificates && !listen.is_empty() && !listen.iter().any(|(listen, _)| listen.uses_tls(true)) {
        section.warn("tls", "`tls` has no effect: no address of `listen` uses TLS", "");
    }
    listen
}

/// Reports an address that occurs twice on the two listeners.
fn check_distinct_addresses(root: &Section<'_>, server: &Server, admin: &Admin) {
    let mut seen = HashSet::new();
    let written = ["server", "admin"].map(|name| (name, root.table(name)));
    seen.extend(admin.metrics.separate_listener().map(address::canonical_listen));
    for ((name, section), addresses) in written.iter().zip([&server.listen, &admin.listen]) {
        for Listen { address, .. } in addresses {
            let free = matches!(address, Address::Tcp(address) if address.port() == 0);
            if !free && !seen.insert(address::canonical_listen(address)) {
                let message = format!("{address} is listened on twice (`{name}.listen`)");
                // The default is not the operator's mistake, so the error points to what is written.
                let at = if section.is_set("listen") { section } else { &written[0].1 };
                at.error("listen", message, "give each listener its own address");
            }
        }
    }
}

/// Warns about settings without effect.
fn warn_of_unused(
    root: &Section<'_>,
    upstreams: &[(SpannedText<'_>, Section<'_>)],
    services: &[Option<ServiceSpec>],
) {
    if services.is_empty() {
        let message = "there is no service: no request is forwarded";
        root.document.warn(&root.at, message, "add a `[service.NAME]`");
    }
    // While a service has errors, its upstream may only seem unused.
    let all_resolved = services.iter().all(Option::is_some);
    let used: HashSet<&str> = services.iter().flatten().map(|service| &*service.upstream).collect();
    for (name, section) in upstreams.iter().filter(|_| all_resolved) {
        if !used.contains(name.value.as_str()) {
            root.document.warn(&section.at, format!("no service uses the upstream {:?}", name.value), "");
        }
    }
}

fn log(section: &Section<'_>) -> Option<Log> {
    let access = section.text("access")?;
    let target = access.parse(|text| match text {
        "stdout" => Ok(LogTarget::Stdout),
        "off" => Ok(LogTarget::Off),
        "" => wrong("`log.access` is empty", "write \"stdout\", \"off\" or the name of a file"),
        path => Ok(LogTarget::File(section.document.directory.join(path))),
    })?;
    let other_words = ["stderr", "none", "syslog", "journald", "-"];
    if let Some(word) = other_words.into_iter().find(|word| access.value.eq_ignore_ascii_case(word)) {
        let message = format!("the access log is written to a file that is called {word}");
        access.warn(message, "write \"stdout\" or \"off\", or the file's name with its directory");
    }
    Some(Log { access: target, level: section.text("level")?.value })
}

fn metrics(section: &Section<'_>) -> metrics::Settings {
    let old_names = section.flag("old_names");
    if old_names {
        section.warn(
            "old_names",
            "metrics are also reported under old names, which the next release removes",
            "move dashboards and alerts to the new names (see CHANGELOG.md), then set `metrics.old_names = false`",
        );
    }
    metrics::Settings { old_names }
}

fn bad_token_limit(section: &Section<'_>) -> Option<BadTokenLimit> {
    Some(BadTokenLimit {
        count: section.count("bad_tokens").and_then(NonZeroU32::new)?,
        window: section.duration("per")?,
    })
}
