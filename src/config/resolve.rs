//! From the written form to the resolved one. Stages: TOML, shape, meaning, contradictions between
//! rules; each runs on whatever the stage before could make sense of, so that one run tells all.

use std::{
    cell::OnceCell,
    collections::HashSet,
    num::{NonZeroU32, NonZeroUsize},
    ops::Range,
    path::Path,
    sync::Arc,
};

use toml::de::DeTable;

use super::{
    Admin, Budgets, Config, Errors, Log, Server,
    address::{self, Listen, Scheme, is_local, network},
    admin, assertion, exchange, fields, keys,
    problem::{Found, Outside, Problems},
    public::warn_of_risks,
    section::{Section, Text},
    service::{self, collect},
    shape, tls, upstream,
};
use crate::{
    admin::MetricsAccess,
    authz::{
        forwarding::TrustedProxies,
        rules::{PublicSpec, Rules, ServiceIds, Settings as RuleSettings},
    },
    metrics,
    net::{self, Address},
    proxy::access_log::LogTarget,
    settings::{BadTokenLimit, FrontProxy, ProxySettings, UpstreamSettings, UpstreamUrl},
    store,
};

pub(super) fn parse(text: &str, path: &Path, outside: Outside) -> Result<Config, Errors> {
    let problems = Problems::new(Arc::from(path.display().to_string()), text, outside);
    let (document, syntax) = DeTable::parse_recoverable(text);
    for error in &syntax {
        let at = error.span().unwrap_or(0..0);
        problems.error(&at, format!("this is not TOML: {}", error.message()), "");
    }
    let broken = problems.error_count();
    shape::check(&problems, keys::ROOT, document.get_ref(), &(0..0), "");
    problems.drop_echoes(broken);

    let root = Section::root(keys::ROOT, &document);
    let directory = path.parent().unwrap_or(Path::new(""));
    let config = if broken == 0 { resolve(&problems, &root, path, directory) } else { None };
    let unfit = problems.has_errors();
    let Found { errors, exposed, warnings } = problems.into_found();
    match config {
        Some(config) if !unfit => Ok(Config { text: text.to_owned(), exposed, warnings, ..config }),
        _ => Err(Errors(errors)),
    }
}

/// `None` where something essential is missing; that has been reported.
fn resolve(problems: &Problems<'_>, root: &Section<'_>, path: &Path, directory: &Path) -> Option<Config> {
    let trusted_proxies = trusted_proxies(problems, &root.table("server"));
    let server = server(problems, root, &trusted_proxies, directory);
    let system = OnceCell::new();
    let admin = admin::admin(problems, root, &server, directory, &system);
    distinct(problems, root, &server, &admin);
    let tokens = root.table("tokens");
    let rules = RuleSettings { perm_alias: tokens.flag("perm_alias"), trusted_proxies };

    let written = root.named("upstream");
    let upstream_names: Vec<&str> = written.iter().map(|(name, _)| name.get_ref().as_str()).collect();
    let upstreams: Vec<Option<UpstreamSettings>> = written
        .iter()
        .map(|(name, section)| upstream::upstream(problems, name, section, directory, &system))
        .collect();
    for ((_, section), upstream) in written.iter().zip(&upstreams) {
        let listen = [&server.listen, &admin.listen];
        let own = |url: &&UpstreamUrl| listen.iter().any(|listen| upstream::leads_to(url, listen));
        if let Some(one) = upstream.iter().flat_map(|one| &one.urls).map(|one| &one.url).find(own) {
            let message = format!("{one} is where this gateway listens itself: requests would go round");
            problems.error(&section.at("urls"), message, "name the service behind it");
        }
    }

    let dropped = fields::dropped(problems, &root.table("server"));
    let written_services = root.named("service");
    let service_names: Vec<&str> = written_services.iter().map(|(name, _)| name.get_ref().as_str()).collect();
    let services: Vec<_> = written_services
        .iter()
        .map(|(name, section)| {
            service::service(problems, name, section, &upstream_names, &dropped, directory)
        })
        .collect();
    let public: Vec<_> = root
        .tables("public")
        .iter()
        .map(|section| service::public(problems, section, &service_names))
        .collect();
    for (section, rule) in root.tables("public").iter().zip(&public) {
        let of = |rule: &PublicSpec| services.iter().flatten().find(|service| service.key == rule.service);
        if let Some((rule, service)) = rule.as_ref().and_then(|rule| Some((rule, of(rule)?))) {
            warn_of_risks(problems, section, rule, service);
        }
    }
    unused(problems, &written, &services, written_services.is_empty());

    let sound_services: Vec<_> = services.iter().flatten().cloned().collect();
    // A rule of a service that did not resolve would be called unknown: an echo.
    let sound_public: Vec<_> = public
        .iter()
        .flatten()
        .filter(|rule| sound_services.iter().any(|service| service.key == rule.service))
        .cloned()
        .collect();
    let compiled = Rules::compile(
        sound_services.clone(),
        sound_public.clone(),
        rules.clone(),
        &mut ServiceIds::default(),
    );
    for error in compiled.err().into_iter().flatten() {
        problems.error_on_line(error.origin.line, error.message);
    }

    let exchange: Vec<_> = root
        .named("exchange")
        .iter()
        .map(|(name, section)| exchange::rule(problems, name, section, &sound_services, directory, &system))
        .collect();

    let store_section = root.table("store");
    let store_path = directory.join(store_section.text("path")?.get_ref());
    let is_written = root.is_written("assertion");
    let section = root.table("assertion");
    let assertion =
        assertion::assertion(problems, &section, is_written, &sound_services, directory, &store_path);
    Some(Config {
        file: path.to_owned(),
        text: String::new(),
        server,
        admin,
        store: store::Settings { path: store_path, ballast: store_section.size("ballast")? },
        policy: store::Policy {
            max_lifetime: tokens.duration("max_lifetime"),
            max_tokens: tokens.count("max_per_user")?,
            audit_retention: store_section.duration("audit_retention"),
            reserved_logins: admin::reserved_logins(problems, &root.table("admin")),
            write_rate: admin::write_rate(problems, &root.table("admin"))?,
            ..store::Policy::default()
        },
        proxy: ProxySettings {
            upstreams: upstreams.into_iter().flatten().map(|u| (u.name.clone(), Arc::new(u))).collect(),
            max_body: root.table("server").size("max_body"),
            forward_auth: forward_auth(problems, root, &rules.trusted_proxies),
            bad_tokens: if root.is_written("limiter") { limiter(&root.table("limiter")) } else { None },
            limits: super::limits::limits(problems, root, &written_services, &sound_services),
            self_rotation: tokens.flag("self_rotation"),
            announce_end: tokens.duration("announce_end"),
            exchange: exchange.into_iter().flatten().map(Arc::new).collect(),
        },
        assertion,
        services: sound_services,
        public: sound_public,
        rules,
        log: log(&root.table("log"), directory)?,
        metrics: metrics(problems, &root.table("metrics")),
        exposed: Vec::new(),
        warnings: Vec::new(),
    })
}

fn server(
    problems: &Problems<'_>,
    root: &Section<'_>,
    trusted_proxies: &TrustedProxies,
    directory: &Path,
) -> Server {
    let section = &root.table("server");
    let listen = listen(problems, section, directory);
    let tls = tls::resolve(problems, section, directory);
    let certificates = section.is_written("tls");
    let plain = |listen: &Listen| !is_local(&listen.address) && !listen.takes_tls(certificates);
    for (Listen { address, .. }, at) in listen.iter().filter(|(listen, _)| plain(listen)) {
        let message = format!("{address} takes tokens in plain text from other machines");
        let advice = if certificates { "write \"https://IP:PORT\"" } else { "set `server.tls`" };
        problems.warn(at, message, format!("{advice}, or see to it that TLS ends in front of it"));
    }
    let proxy_protocol = section.text("proxy_protocol").is_some_and(|word| word.get_ref() == "required");
    if proxy_protocol && trusted_proxies.is_empty() {
        let advice = "name the proxies in `trusted_proxies`: nobody else is asked for the header";
        problems.error(&section.at("proxy_protocol"), "no proxy is trusted to send a PROXY header", advice);
    }
    let unix_mode = section.text("unix_mode").into_iter().collect();
    let unix_mode = collect(problems, unix_mode, address::mode).first().copied().unwrap_or(0o600);
    if trusted_proxies.unix && unix_mode & 0o002 != 0 {
        let advice = "leave out the last digit's 2, or \"unix\" among `trusted_proxies`";
        problems.warn(&section.at("unix_mode"), "every user of this machine is a trusted proxy", advice);
    }
    Server {
        unix_mode,
        proxy_protocol,
        listen: listen.into_iter().map(|(listen, _)| listen).collect(),
        tls,
        workers: section.count("workers").and_then(NonZeroUsize::new),
        drain: section.duration("drain").unwrap_or_default(),
        limits: net::Limits { trusted_proxies: trusted_proxies.clone(), ..limits(problems, section) },
        budgets: budgets(root),
    }
}

/// What a proxy tells of the original request is believed, so that there has to be one to believe.
fn forward_auth(
    problems: &Problems<'_>,
    root: &Section<'_>,
    trusted_proxies: &TrustedProxies,
) -> Option<FrontProxy> {
    if !root.is_written("forward_auth") {
        return None;
    }
    if trusted_proxies.is_empty() {
        problems.error(
            &root.at("forward_auth"),
            "`forward_auth` answers nobody without `server.trusted_proxies`",
            "name the addresses that the proxy asks from, such as [\"127.0.0.1\"]",
        );
    }
    match root.table("forward_auth").text("proxy")?.get_ref().as_str() {
        "nginx" => Some(FrontProxy::Nginx),
        "traefik" => Some(FrontProxy::Traefik),
        "caddy" => Some(FrontProxy::Caddy),
        "envoy" => Some(FrontProxy::Envoy),
        _ => None,
    }
}

pub(super) fn trusted_proxies(problems: &Problems<'_>, server: &Section<'_>) -> TrustedProxies {
    let (unix, networks): (Vec<_>, Vec<_>) =
        server.texts("trusted_proxies").into_iter().partition(|text| text.get_ref() == "unix");
    TrustedProxies { networks: collect(problems, networks, network), unix: !unix.is_empty() }
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

fn limits(problems: &Problems<'_>, server: &Section<'_>) -> net::Limits {
    let (limits, timeouts) = (server.table("limits"), server.table("timeouts"));
    let bytes = |name, most: u64| {
        let size = limits.size(name).unwrap_or(most);
        if size > most {
            problems.error(&limits.at(name), format!("`{name}` must be at most {}k", most >> 10), "");
        }
        usize::try_from(size).unwrap_or(usize::MAX)
    };
    let defaults = net::Limits::default();
    let resolved = net::Limits {
        head: bytes("head", LARGEST_HEAD),
        field: bytes("field", LARGEST_HEAD),
        fields: limits.count("fields").unwrap_or(defaults.fields),
        target: bytes("target", LARGEST_HEAD),
        connections: limits.count("connections").unwrap_or(defaults.connections),
        trusted_proxies: TrustedProxies::default(),
        connections_per_address: limits.count("connections_per_address"),
        head_timeout: timeouts.duration("head").unwrap_or(defaults.head_timeout),
        tls_handshake_timeout: timeouts.duration("tls_handshake").unwrap_or(defaults.tls_handshake_timeout),
        idle_timeout: timeouts.duration("idle").unwrap_or(defaults.idle_timeout),
        body_timeout: timeouts.duration("body").unwrap_or(defaults.body_timeout),
        write_timeout: timeouts.duration("write").unwrap_or(defaults.write_timeout),
        ping: timeouts.duration("ping").unwrap_or(defaults.ping),
    };
    if resolved.head < SMALLEST_HEAD {
        let message =
            format!("`head` must be at least {SMALLEST_HEAD} bytes: a credential alone may have 512");
        problems.error(&limits.at("head"), message, "");
    }
    for (name, part) in [("field", resolved.field), ("target", resolved.target)] {
        if part > resolved.head {
            let message = format!("`{name}` is larger than `head`, which holds it");
            problems.error(&limits.at(name), message, "");
        }
    }
    resolved
}

/// Every connection may hold this much; hyper's buffer counts with 32 bits.
const LARGEST_HEAD: u64 = 1 << 20;
/// hyper's own smallest buffer.
const SMALLEST_HEAD: usize = 8 << 10;

pub(super) fn listen(
    problems: &Problems<'_>,
    section: &Section<'_>,
    directory: &Path,
) -> Vec<(Listen, Range<usize>)> {
    let texts = section.texts("listen");
    if texts.is_empty() {
        problems.error(&section.at("listen"), "`listen` is empty", "name at least one address");
    }
    let listen: Vec<_> = texts
        .into_iter()
        .filter_map(|text| match address::listen(text.get_ref(), directory) {
            Ok(listen) => Some((listen, text.span())),
            Err((message, advice)) => {
                problems.error(&text.span(), message, advice);
                None
            }
        })
        .collect();
    let certificates = section.is_written("tls");
    let secure = listen.iter().filter(|(listen, _)| listen.scheme == Some(Scheme::Https));
    for (Listen { address, .. }, at) in secure.filter(|_| !certificates) {
        let message = format!("there is no certificate to show at https://{address}");
        problems.error(at, message, "set `tls` in the same table");
    }
    if certificates && !listen.is_empty() && !listen.iter().any(|(listen, _)| listen.takes_tls(true)) {
        problems.warn(&section.at("tls"), "`tls` is of no use: no address of `listen` has TLS", "");
    }
    listen
}

/// No address twice, over both listeners.
fn distinct(problems: &Problems<'_>, root: &Section<'_>, server: &Server, admin: &Admin) {
    let mut seen = HashSet::new();
    let written = ["server", "admin"].map(|name| (name, root.table(name)));
    if let MetricsAccess::Apart(address) = &admin.metrics {
        seen.insert(address);
    }
    for ((name, section), addresses) in written.iter().zip([&server.listen, &admin.listen]) {
        for Listen { address, .. } in addresses {
            let free = matches!(address, Address::Tcp(address) if address.port() == 0);
            if !free && !seen.insert(address) {
                let message = format!("{address} is listened on twice (`{name}.listen`)");
                // The default is nobody's mistake: what is written is.
                let at = if section.is_written("listen") { section } else { &written[0].1 };
                problems.error(&at.at("listen"), message, "give each listener its own address");
            }
        }
    }
}

/// Warns of what is written and does nothing.
fn unused(
    problems: &Problems<'_>,
    upstreams: &[(Text, Section<'_>)],
    services: &[Option<crate::authz::rules::ServiceSpec>],
    no_service: bool,
) {
    if no_service {
        problems.warn(&(0..0), "there is no service: every request ends with 404", "add a `[service.NAME]`");
    }
    // While a service is in error, its upstream may only seem unused.
    let all_resolved = services.iter().all(Option::is_some);
    for (name, section) in upstreams.iter().filter(|_| all_resolved) {
        let used = services.iter().flatten().any(|service| *service.upstream == **name.get_ref());
        if !used {
            problems.warn(&section.at, format!("no service uses the upstream {:?}", name.get_ref()), "");
        }
    }
}

fn log(section: &Section<'_>, directory: &Path) -> Option<Log> {
    let access = match section.text("access")?.get_ref().as_str() {
        "stdout" => LogTarget::Stdout,
        "off" => LogTarget::Off,
        path => LogTarget::File(directory.join(path)),
    };
    Some(Log { access, level: section.text("level")?.get_ref().clone() })
}

fn metrics(problems: &Problems<'_>, section: &Section<'_>) -> metrics::Settings {
    let old_names = section.flag("old_names");
    if old_names {
        problems.warn(
            &section.at("old_names"),
            "old names of metrics are reported, too: they go with the next release",
            "change over what reads them (CHANGELOG.md lists the new names), then set `metrics.old_names = false`",
        );
    }
    metrics::Settings { old_names }
}

fn limiter(section: &Section<'_>) -> Option<BadTokenLimit> {
    Some(BadTokenLimit {
        count: u32::try_from(section.count("bad_tokens")?).ok().and_then(NonZeroU32::new)?,
        window: section.duration("per")?,
    })
}
