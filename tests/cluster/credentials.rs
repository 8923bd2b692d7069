//! The passwords and certificates by which etcd knows a node: expired ones are renewed,
//! missing rights are reported.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    thread,
    time::{Duration, Instant, SystemTime},
};

use rcgen::{CertificateParams, CertifiedIssuer, DnType, KeyPair};

use crate::{
    nodes::{Cluster, lease},
    relay::Mode,
    server::Etcd,
    support::authority::authority,
};

fn write_private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Base64 of `/permgate/` and of the end of its range.
const PREFIX: &str = "L3Blcm1nYXRlLw==";
const PREFIX_END: &str = "L3Blcm1nYXRlMA==";

fn sign_in(etcd: &Etcd, name: &str, password: &str) -> String {
    let body = format!(r#"{{"name": "{name}", "password": "{password}"}}"#);
    let answer: serde_json::Value = serde_json::from_str(&etcd.must("auth/authenticate", "", &body)).unwrap();
    answer["token"].as_str().unwrap().to_owned()
}

fn allow(etcd: &Etcd, token: &str) {
    let range = format!(r#""key": "{PREFIX}", "range_end": "{PREFIX_END}""#);
    let body = format!(r#"{{"name": "gate", "perm": {{"permType": "READWRITE", {range}}}}}"#);
    etcd.must("auth/role/grant", token, &body);
}

#[test]
#[ignore = "starts etcd: apt-get install etcd-server"]
fn expired_etcd_sign_in_is_renewed_and_missing_right_is_reported() {
    let etcd = Etcd::start(1, &["--auth-token", "simple", "--auth-token-ttl", "3"]);
    for (path, body) in [
        ("auth/role/add", r#"{"name": "root"}"#),
        ("auth/role/add", r#"{"name": "gate"}"#),
        ("auth/user/add", r#"{"name": "root", "password": "top"}"#),
        ("auth/user/add", r#"{"name": "gate", "password": "first"}"#),
        ("auth/user/grant", r#"{"user": "root", "role": "root"}"#),
        ("auth/user/grant", r#"{"user": "gate", "role": "gate"}"#),
    ] {
        etcd.must(path, "", body);
    }
    allow(&etcd, "");
    etcd.must("auth/enable", "", "{}");
    let secrets = tempfile::tempdir().unwrap();
    let password = secrets.path().join("password");
    write_private(&password, "first\n");
    let user = format!(r#"user = {{ name = "gate", password = "file:{}" }}"#, password.display());
    let cluster = Cluster::over(etcd, 2, &user);
    let (_, token) = cluster.token(0, "ann", "ci");
    // Its sign-in expires while the node sends nothing.
    cluster.link(0, Mode::Hangs);
    thread::sleep(Duration::from_millis(3500));
    cluster.link(0, Mode::Passes);
    thread::sleep(lease());
    assert_eq!(cluster.status(0, &token), 200);
    assert_eq!(cluster.create_user(0, "bob"), 201);
    // With a new password, the file is read again.
    let root = sign_in(&cluster.etcd, "root", "top");
    write_private(&password, "second\n");
    cluster.etcd.must("auth/user/changepw", &root, r#"{"name": "gate", "password": "second"}"#);
    assert_eq!(cluster.create_user(1, "carl"), 201);
    // The right itself is revoked.
    let root = sign_in(&cluster.etcd, "root", "top");
    let range = format!(r#""role": "gate", "key": "{PREFIX}", "range_end": "{PREFIX_END}""#);
    cluster.etcd.must("auth/role/revoke", &root, &format!("{{{range}}}"));
    assert_eq!(cluster.create_user(0, "dora"), 503);
    assert_eq!(cluster.status(0, &token), 200, "for a while");
    for node in 0..2 {
        let line = cluster.process(node).words.wait_for("etcd refuses this node");
        assert!(line.contains("permission denied"), "{line}");
        assert!(cluster.metric(node, "permgate_cluster_probes_refused_total") > 0);
    }
    thread::sleep(lease());
    assert_eq!([0, 1].map(|node| cluster.status(node, &token)), [503, 503]);
    allow(&cluster.etcd, &sign_in(&cluster.etcd, "root", "top"));
    (0..2).for_each(|node| cluster.wait_until_ready(node));
    assert_eq!([0, 1].map(|node| cluster.status(node, &token)), [200, 200]);
    assert_eq!(cluster.create_user(0, "dora"), 201);
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        Self(authority())
    }

    /// Writes `NAME.crt` and `NAME.key` into a directory.
    fn issue(&self, directory: &Path, name: &str, lasts: Duration) {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + now + lasts;
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        fs::write(directory.join(format!("{name}.crt")), certificate.pem()).unwrap();
        write_private(&directory.join(format!("{name}.key")), &key.serialize_pem());
    }
}

#[test]
#[ignore = "starts etcd: apt-get install etcd-server"]
fn expired_certificate_is_reported_and_its_successor_is_loaded() {
    const LASTS: Duration = Duration::from_secs(10);
    let (authority, directory) = (Authority::new(), tempfile::tempdir().unwrap());
    let path = |name: &str| directory.path().join(name).display().to_string();
    fs::write(path("ca.crt"), authority.0.pem()).unwrap();
    authority.issue(directory.path(), "etcd", Duration::from_secs(3600));
    authority.issue(directory.path(), "gate", LASTS);
    let issued = Instant::now();
    let (ca, cert, key) = (path("ca.crt"), path("etcd.crt"), path("etcd.key"));
    let options = ["--cert-file", &cert, "--key-file", &key, "--client-cert-auth", "--trusted-ca-file", &ca];
    let (cert, key) = (path("gate.crt"), path("gate.key"));
    let tls = format!(r#"tls = {{ ca = "{ca}", cert = "{cert}", key = "{key}" }}"#);
    let cluster = Cluster::over(Etcd::start(1, &options), 1, &tls);
    let (_, token) = cluster.token(0, "ann", "ci");
    thread::sleep((LASTS + Duration::from_secs(1)).saturating_sub(issued.elapsed()));
    // Existing connections stay; new ones are refused.
    assert_eq!(cluster.status(0, &token), 200);
    cluster.link(0, Mode::Passes);
    cluster.process(0).words.wait_for("etcd does not respond");
    cluster.process(0).words.wait_for("gate.crt expires in 0 days");
    let gauge = format!("permgate_tls_certificate_not_after_timestamp_seconds{{certificate=\"{cert}\"}}");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    assert!(cluster.metric(0, &gauge) < now);
    assert!(cluster.metric(0, "permgate_cluster_probes_unanswered_total") > 0);
    thread::sleep(lease());
    assert_eq!(cluster.status(0, &token), 503);
    authority.issue(directory.path(), "gate", Duration::from_secs(3600));
    cluster.wait_until_ready(0);
    assert_eq!(cluster.status(0, &token), 200);
    assert_eq!(cluster.create_user(0, "bob"), 201);
}
