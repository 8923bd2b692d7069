//! Every default of `gateway.toml`, as it would be written there, with the reason for the number.

/// Loopback: a gateway that nobody has configured yet serves its own machine only.
pub const LISTEN: &str = r#"["127.0.0.1:8080"]"#;
/// Whoever names authorities wants to know who comes.
pub const TLS_CLIENT_CERTIFICATE: &str = r#""required""#;
/// Nobody may say on whose behalf a request comes until somebody is named.
pub const TRUSTED_PROXIES: &str = "[]";
/// The list has what well-known products believe; what else an upstream believes, its operator knows.
pub const DROP_FIELDS: &str = "[]";
/// A header that clients could write themselves is not looked for.
pub const PROXY_PROTOCOL: &str = r#""off""#;
/// The owner alone; a proxy of another user needs its group let in.
pub const UNIX_MODE: &str = r#""0600""#;
/// Longer than a usual deployment waits before it kills, shorter than it is patient with.
pub const DRAIN: &str = r#""30s""#;

/// Room for a 16 KiB field beside the usual dozen; more is refused with 431.
pub const HEAD: &str = r#""32k""#;
/// The largest cookie and the longest credential fit four times over.
pub const FIELD: &str = r#""16k""#;
/// Browsers send 20, chains of proxies add 10.
pub const FIELDS: &str = "200";
/// Longer targets are refused by most upstreams anyway.
pub const TARGET: &str = r#""16k""#;
/// About 300 MB of memory when each is busy; two descriptors each.
pub const CONNECTIONS: &str = "10000";

/// Any live client sends its head in one go; ten seconds is for lossy links, not for slow attackers.
pub const HEAD_TIMEOUT: &str = r#""10s""#;
/// Two round trips; as for the head.
pub const TLS_HANDSHAKE: &str = r#""10s""#;
/// Between two requests of one client; the usual value of load balancers.
pub const IDLE: &str = r#""75s""#;
/// A body that is wanted and does not come.
pub const BODY: &str = r#""30s""#;
/// An answer that is not taken.
pub const WRITE: &str = r#""60s""#;
/// A client that is gone is found before an idle one would be closed.
pub const PING: &str = r#""20s""#;

/// Loopback and a socket whose peer the kernel vouches for.
pub const ADMIN_LISTEN: &str = r#"["127.0.0.1:8081", "unix:permgate.sock"]"#;
/// Beside the addresses listened on and `localhost`, which are always in it.
pub const ADMIN_HOSTS: &str = "[]";
/// What software behind a gateway calls its first account.
pub const RESERVED_LOGINS: &str = r#"["admin", "root", "administrator"]"#;
/// More than a person or a pipeline makes, and little beside what the store takes.
pub const WRITE_RATE: &str = r#""50/s""#;
/// A page of tokens that somebody tidies up.
pub const WRITE_BURST: &str = "500";
/// Scrapers of this machine need no token; who comes through a proxy of this machine is a stranger.
pub const ADMIN_METRICS: &str = "\"local\"";
pub const ALLOW_REMOTE: &str = "false";

pub const OIDC_TITLE: &str = "\"single sign-on\"";
/// OpenID Connect Core, 5.4: login, name and address are in these.
pub const OIDC_SCOPES: &str = "[\"openid\", \"profile\", \"email\"]";
pub const OIDC_LOGIN_CLAIM: &str = "\"preferred_username\"";
pub const OIDC_GROUPS_CLAIM: &str = "\"groups\"";
/// The provider decides about nobody's power unless told so.
pub const OIDC_GROUPS: &str = "[]";
pub const OIDC_LINK_LOGINS: &str = "false";

/// Beside the file that names it.
pub const STORE_PATH: &str = r#""permgate-data""#;
/// sled needs room to open on a full disk; this much is given back to it.
pub const BALLAST: &str = r#""16m""#;

/// What the url and the other side's answer say is seldom wrong.
pub const UPSTREAM_HTTP: &str = r#""auto""#;
/// A TCP handshake within a data centre takes a millisecond; two seconds include one lost packet.
pub const CONNECT: &str = r#""2s""#;
/// Reports and exports think for long before they speak.
pub const FIRST_BYTE: &str = r#""60s""#;
pub const BODY_IDLE: &str = r#""60s""#;
/// WebSockets that mean to live ping more often than once an hour.
pub const STREAM_IDLE: &str = r#""1h""#;
pub const UPSTREAM_PING: &str = r#""5m""#;
pub const TUNNEL_IDLE: &str = r#""1h""#;
/// Shorter than the keep-alive of usual upstreams (nginx 75 s, Jetty 30 s, Node 5 s is retried).
pub const POOL_IDLE: &str = r#""15s""#;
/// One lost connection is chance, three in a row are not.
pub const EJECT_FAILURES: &str = "3";
/// For a start; it doubles while the url stays bad.
pub const EJECT_FOR: &str = r#""5s""#;

/// All alike.
pub const WEIGHT: &str = "1";
/// Fair without knowing anything.
pub const BALANCE: &str = r#""round-robin""#;
/// Six questions a minute burden nobody.
pub const HEALTH_INTERVAL: &str = r#""10s""#;
/// Whoever takes longer to say that it is well is not.
pub const HEALTH_TIMEOUT: &str = r#""2s""#;
/// One sound answer may be the last before the next crash.
pub const HEALTH_RISE: &str = "2";
/// As for ejection.
pub const HEALTH_FALL: &str = "3";
/// Once meets a connection that was just given up; more often only multiplies a burden.
pub const RETRIES: &str = "1";
/// The usual life of a record that is meant to change.
pub const RESOLVE: &str = r#""30s""#;
/// A burst, not a crowd.
pub const QUEUE: &str = "100";
/// Who waits longer is better told so.
pub const QUEUE_TIMEOUT: &str = r#""1s""#;

/// A package manager opens a few dozen connections at once and gives up after a few refusals.
pub const LIMIT_QUEUE: &str = "100";
/// Shorter than any client's own patience.
pub const LIMIT_QUEUE_TIMEOUT: &str = r#""5s""#;

/// A pipeline asks for it; a thief would like it, too.
pub const SELF_ROTATION: &str = "false";
/// Longer than most jobs run.
pub const EXCHANGE_LIFETIME: &str = r#""15m""#;
/// A busy project has a few hundred jobs an hour.
pub const EXCHANGE_TOKENS: &str = "500";

/// The reading methods of RFC 9110 that change nothing.
pub const READ_METHODS: &str = r#"["GET", "HEAD", "OPTIONS"]"#;
pub const AUTHORIZATION: &str = r#""strip""#;
/// The one that no browser sends by itself and every cache knows to be private.
pub const CREDENTIALS: &str = r#"["bearer"]"#;
pub const REGISTRY: &str = "false";
pub const IDENTITY: &str = r#""headers""#;

/// What upstreams expect as `iss`; one name for all gateways of a team, unless they tell them apart.
pub const ISSUER: &str = r#""permgate""#;
/// Time for a queue in front of the upstream and clocks that differ a little, no more.
pub const ASSERTION_LIFETIME: &str = r#""30s""#;
/// Small, fast, and nothing to choose wrong.
pub const ALGORITHM: &str = r#""EdDSA""#;
/// A key that leaked unseen is of no use for longer.
pub const ROTATE: &str = r#""30d""#;
/// Verifiers ask for the keys every few minutes; an hour includes an outage of theirs.
pub const PUBLISH_AHEAD: &str = r#""1h""#;

/// Clients that hard-code Hub's prefix keep working.
pub const PERM_ALIAS: &str = "true";
/// No pipeline needs more; a script gone wild stops here.
pub const MAX_PER_USER: &str = "500";

pub const ACCESS_LOG: &str = r#""stdout""#;
pub const LOG_LEVEL: &str = r#""info""#;

/// Dashboards and alerts get one release to change over.
pub const OLD_NAMES: &str = "true";
