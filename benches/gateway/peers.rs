//! The proxies under load. Those that authorize have the same 10,000 tokens and 48 services.

use std::{
    env,
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    CORES,
    load::{Load, Outcome},
    support::{
        import::{Accounts, bearer},
        stage::{Ended, listening, vacant},
    },
};

/// Number of known tokens. Numbers from here on are unknown tokens.
pub const TOKENS: usize = 10_000;
const SERVICES: usize = 48;
const OWNERS: usize = 1000;

/// Ticks per second of `/proc/PID/stat`.
const TICKS: f64 = 100.0;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Access {
    On,
    Off,
}

/// The first of the four services that a token is granted for.
pub fn service_of(number: usize) -> usize {
    number % SERVICES
}

fn scope(number: usize) -> [usize; 4] {
    [0, 1, 2, 3].map(|step| (number + step) % SERVICES)
}

/// A command pinned to one core, if taskset is installed.
pub fn pinned(core: &str, program: &Path) -> Command {
    if Command::new("taskset").arg("-V").output().is_ok_and(|output| output.status.success()) {
        let mut command = Command::new("taskset");
        command.args(["-c", core]).arg(program);
        return command;
    }
    Command::new(program)
}

/// The origin, and a directory for the proxies' files.
pub struct Bench {
    dir: tempfile::TempDir,
    _origin: Ended,
    origin: u16,
}

impl Bench {
    pub fn new() -> Self {
        let mut command = pinned(CORES[1], &env::current_exe().unwrap());
        let mut origin = Ended(command.arg("origin").stdout(Stdio::piped()).spawn().unwrap());
        let mut port = String::new();
        BufReader::new(origin.0.stdout.take().unwrap()).read_line(&mut port).unwrap();
        let bench =
            Self { dir: tempfile::tempdir().unwrap(), _origin: origin, origin: port.trim().parse().unwrap() };
        bench.import();
        bench.certify();
        bench
    }

    /// Starts every proxy that is installed. `plain`: also an nginx that does not authorize. `all`: also
    /// those whose way of authorizing costs several times as much.
    pub fn start(&self, access: Access, plain: bool, tls: bool, all: bool) -> Vec<Peer> {
        let mut peers = Vec::new();
        if installed("nginx") {
            if plain {
                peers.push(self.nginx("nginx", access, tls, "location / { proxy_pass http://origin; }", ""));
            }
            let locations = locations("proxy_pass http://origin");
            peers.push(self.nginx("nginx map", access, tls, &locations, &tokens_of_nginx()));
            if all {
                peers.push(self.nginx_auth_request(access, tls));
            }
        }
        if installed("haproxy") && access == Access::Off {
            peers.push(self.haproxy(tls));
        }
        if all && installed("envoy") {
            peers.push(self.envoy());
        }
        peers.push(self.permgate(access, tls));
        peers
    }

    fn certify(&self) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        self.write("tls.crt", &certificate);
        self.write("tls.key", &key);
        self.write("tls.pem", &(certificate + &key));
    }

    fn permgate(&self, access: Access, tls: bool) -> Peer {
        let address = vacant();
        let text = self.gateway_toml(address, access);
        let keyed = "workers = 1\ntls = { cert = \"tls.crt\", key = \"tls.key\" }";
        let text = if tls { text.replacen("workers = 1", keyed, 1) } else { text };
        let file = self.write("gateway.toml", &text);
        let mut command = pinned(CORES[0], Path::new(env!("CARGO_BIN_EXE_permgate")));
        command.arg("run").arg("-c").arg(file);
        Peer::start("permgate", address, command)
    }

    fn gateway_toml(&self, address: SocketAddr, access: Access) -> String {
        let (dir, access) = (self.dir.path().display(), if access == Access::On { "json" } else { "off" });
        let mut text = format!(
            r#"version = 1
[server]
listen = ["{address}"]
workers = 1
[admin]
listen = ["unix:{dir}/admin.sock"]
[store]
path = "{dir}/store"
ballast = "64k"
[log]
access = "{access}"
level = "error"
[upstream.origin]
urls = ["http://127.0.0.1:{}"]
"#,
            self.origin
        );
        for service in 0..SERVICES {
            let name = format!("svc{service:02}");
            write!(
                text,
                "[service.{name}]\ntitle = \"{name}\"\nupstream = \"origin\"\npaths = [\"/{name}\"]\nreaders = [\"readers\"]\n"
            )
            .unwrap();
        }
        text
    }

    fn import(&self) {
        let config = self.write("import.toml", &self.gateway_toml(vacant(), Access::Off));
        let mut accounts = Accounts::default();
        let owner = |number: usize| format!("user{:04}", number % OWNERS);
        for number in 0..OWNERS {
            accounts.user(&owner(number));
        }
        accounts.group("readers", &(0..OWNERS).map(owner).collect::<Vec<_>>());
        for number in 0..TOKENS {
            accounts.token(number, &owner(number), &scope(number).map(|service| format!("svc{service:02}")));
        }
        accounts.import(&config);
    }

    fn nginx(&self, name: &'static str, access: Access, tls: bool, locations: &str, maps: &str) -> Peer {
        let (address, dir, origin) = (vacant(), self.dir.path().display(), self.origin);
        let log =
            if access == Access::On { format!("{dir}/{}.log", name.replace(' ', "-")) } else { "off".into() };
        let ssl = if tls { "ssl http2" } else { "" };
        let text = format!(
            "worker_processes 1; daemon off; master_process off; pid {dir}/nginx.pid; error_log stderr crit;
events {{ worker_connections 16384; multi_accept on; }}
http {{
  access_log {log}; server_tokens off; tcp_nodelay on; keepalive_timeout 3600s; keepalive_requests 1000000000;
  client_body_temp_path {dir}/t1; proxy_temp_path {dir}/t2; fastcgi_temp_path {dir}/t3; uwsgi_temp_path {dir}/t4; scgi_temp_path {dir}/t5;
  proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host;
  proxy_buffer_size 16k; proxy_buffers 8 32k; proxy_max_temp_file_size 0;
  upstream origin {{ server 127.0.0.1:{origin}; keepalive 256; keepalive_requests 1000000000; keepalive_timeout 3600s; }}
  map_hash_max_size 65536; map_hash_bucket_size 256;
  {maps}
  ssl_certificate {dir}/tls.crt; ssl_certificate_key {dir}/tls.key;
  server {{ listen {address} {ssl} backlog=4096; {locations} }}
}}"
        );
        let file = self.write(&format!("{}.conf", name.replace(' ', "-")), &text);
        let mut command = pinned(CORES[0], Path::new("nginx"));
        command.args(["-e", "stderr", "-c"]).arg(file);
        Peer::start(name, address, command)
    }

    /// Asks the cheapest authorizer there is: itself, over a unix socket.
    fn nginx_auth_request(&self, access: Access, tls: bool) -> Peer {
        let socket = self.dir.path().join("authorizer.sock");
        let authorizer = format!(
            "{} upstream authorizer {{ server unix:{socket}; keepalive 256; keepalive_requests 1000000000; }}
server {{ listen unix:{socket} backlog=4096; {} }}",
            tokens_of_nginx(),
            locations("return 204"),
            socket = socket.display(),
        );
        let asking = "location / { auth_request /authorize; proxy_pass http://origin; }
location = /authorize { internal; proxy_pass http://authorizer$request_uri; proxy_pass_request_body off; proxy_set_header Content-Length \"\"; proxy_set_header Connection \"\"; }";
        self.nginx("nginx auth_request", access, tls, asking, &authorizer)
    }

    /// `api_key_auth`, with the tokens in the filter and the clients that each service allows.
    fn envoy(&self) -> Peer {
        let address = vacant();
        let socket =
            |port: u16| json!({"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}});
        let config = |name: &str, fields: Value| {
            let kind = format!("type.googleapis.com/envoy.extensions.filters.{name}");
            let mut config = json!({"@type": kind});
            config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            config
        };
        let credentials = |number| json!({"key": bearer(number), "client": format!("c{number}")});
        let credentials: Vec<Value> = (0..TOKENS).map(credentials).collect();
        let route = |service: usize| {
            let allowed = (0..TOKENS).filter(|number| scope(*number).contains(&service));
            let allowed: Vec<String> = allowed.map(|number| format!("c{number}")).collect();
            json!({
                "match": {"prefix": format!("/svc{service:02}/")},
                "route": {"cluster": "origin", "timeout": "0s"},
                "typed_per_filter_config": {"envoy.filters.http.api_key_auth": config(
                    "http.api_key_auth.v3.ApiKeyAuthPerRoute",
                    json!({"allowed_clients": allowed}),
                )},
            })
        };
        let routes: Vec<Value> = (0..SERVICES).map(route).collect();
        let manager = json!({
            "stat_prefix": "p",
            "generate_request_id": false,
            "http_filters": [
                {"name": "envoy.filters.http.api_key_auth", "typed_config": config(
                    "http.api_key_auth.v3.ApiKeyAuth",
                    json!({"key_sources": [{"header": "Authorization"}], "credentials": credentials}),
                )},
                {"name": "router", "typed_config": config(
                    "http.router.v3.Router",
                    json!({"suppress_envoy_headers": true, "dynamic_stats": false}),
                )},
            ],
            "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": routes}]},
        });
        let name = "network.http_connection_manager.v3.HttpConnectionManager";
        let filter = json!({"name": "manager", "typed_config": config(name, manager)});
        let limits =
            json!({"max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000});
        let text = json!({
            "stats_config": {"stats_matcher": {"reject_all": true}},
            "static_resources": {
                "listeners": [{
                    "address": socket(address.port())["address"],
                    "filter_chains": [{"filters": [filter]}],
                }],
                "clusters": [{
                    "name": "origin",
                    "circuit_breakers": {"thresholds": [limits]},
                    "load_assignment": {
                        "cluster_name": "origin",
                        "endpoints": [{"lb_endpoints": [{"endpoint": socket(self.origin)}]}],
                    },
                }],
            },
        });
        let file = self.write("envoy.json", &text.to_string());
        let mut command = pinned(CORES[0], Path::new("envoy"));
        command.args(["--concurrency", "1", "--disable-hot-restart", "-l", "error", "-c"]).arg(file);
        Peer::start("Envoy api_key_auth", address, command)
    }

    fn haproxy(&self, tls: bool) -> Peer {
        let address = vacant();
        let pem = self.dir.path().join("tls.pem");
        let ssl = if tls { format!("ssl crt {} alpn h2,http/1.1", pem.display()) } else { String::new() };
        let (mut paths, mut grants) = (String::new(), String::new());
        (0..SERVICES).for_each(|service| writeln!(paths, "/svc{service:02}/ {}", 1_u64 << service).unwrap());
        for number in 0..TOKENS {
            let bits = scope(number).iter().fold(0_u64, |bits, service| bits | 1 << service);
            writeln!(grants, "{} {bits}", bearer(number)).unwrap();
        }
        let (paths, grants) = (self.write("paths.map", &paths), self.write("tokens.map", &grants));
        let text = format!(
            "global
    nbthread 1
defaults
    mode http
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    timeout http-keep-alive 1h
    http-reuse always
frontend in
    bind {address} {ssl} backlog 4096
    http-request set-var(txn.bit) path,map_beg_int({})
    http-request set-var(txn.grant) http_auth_bearer,map_str_int({})
    http-request return status 401 unless {{ var(txn.grant) -m found }}
    http-request return status 403 unless {{ var(txn.bit) -m found }} {{ var(txn.grant),and(txn.bit) gt 0 }}
    default_backend origin
backend origin
    server o 127.0.0.1:{} pool-purge-delay 1h
",
            paths.display(),
            grants.display(),
            self.origin
        );
        let file = self.write("haproxy.cfg", &text);
        let mut command = pinned(CORES[0], Path::new("haproxy"));
        command.arg("-f").arg(file);
        Peer::start("HAProxy map", address, command)
    }

    fn write(&self, name: &str, text: &str) -> std::path::PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

/// What nginx does with the requests that are granted.
fn locations(granted: &str) -> String {
    let mut text = String::new();
    for service in 0..SERVICES {
        writeln!(text, "location /svc{service:02}/ {{").unwrap();
        writeln!(text, "if ($grant = \"\") {{ return 401; }}").unwrap();
        writeln!(text, "if ($grant !~ \",{service:02},\") {{ return 403; }}").unwrap();
        writeln!(text, "{granted}; }}").unwrap();
    }
    text
}

fn tokens_of_nginx() -> String {
    let mut text = "map $http_authorization $grant { default \"\";\n".to_owned();
    for number in 0..TOKENS {
        let [a, b, c, d] = scope(number);
        writeln!(text, "\"Bearer {}\" \",{a:02},{b:02},{c:02},{d:02},\";", bearer(number)).unwrap();
    }
    text + "}"
}

/// A running proxy.
pub struct Peer {
    pub name: &'static str,
    address: SocketAddr,
    process: Ended,
}

impl Peer {
    fn start(name: &'static str, address: SocketAddr, mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Self { name, address, process: listening(&mut command, address) }
    }

    /// Measures after a warm-up of a tenth of the time, in which connections are opened and caches filled.
    pub fn measure(&self, load: &Load, span: Duration) -> Outcome {
        load.run(self.address, span / 10);
        let before = self.cpu();
        let (requests, p99) = load.run(self.address, span);
        Outcome { cpu: self.cpu() - before, requests, p99 }
    }

    /// The process's user and system time so far, in seconds.
    fn cpu(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.0.id())).unwrap();
        let figures = stat.rsplit_once(')').expect("the name is in brackets").1;
        figures.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap() / TICKS).sum()
    }
}

pub fn installed(program: &str) -> bool {
    let found =
        Command::new(program).arg(if program == "h2load" { "--version" } else { "-v" }).output().is_ok();
    if !found {
        eprintln!("{program} is not installed: it is left out");
    }
    found
}
