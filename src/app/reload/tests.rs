use std::path::Path;

use super::*;
use crate::app::Signals;

#[tokio::test]
async fn rejected_reload_keeps_certificates_and_an_incomplete_one_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("gateway.toml");
    let certs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/net/certs");
    let write = |name: &str| {
        let pair = |end: &str| certs.join(format!("{name}.{end}")).display().to_string();
        let tls = format!("tls = {{ cert = {:?}, key = {:?} }}", pair("crt"), pair("key"));
        let server = format!("[server]\nlisten = [\"127.0.0.1:0\"]\n{tls}\n");
        std::fs::write(
            dir.path().join("gateway.toml"),
            format!("version = 1\n{server}[admin]\nlisten = [\"127.0.0.1:0\"]\n"),
        )
        .unwrap();
    };
    write("one");
    let (reloader, store) = start(file);
    let certificates = reloader.certificates.proxy.clone().unwrap();
    let reload = async || {
        let before = certificates.current();
        let outcome = reloader.reload(Actor::new(ActorKind::Operator)).await;
        (outcome.is_ok(), !Arc::ptr_eq(&before, &certificates.current()))
    };
    write("two");
    assert_eq!(reload().await, (true, true), "(reloaded, new certificates)");
    let counts = || (reloader.metrics.reloads.value(), reloader.metrics.reloads_failed.value());
    // Joins the fence like a worker, and acknowledges nothing.
    let silent = reloader.fence.join();
    assert_eq!(reload().await, (false, false), "(reloaded, new certificates)");
    assert_eq!(counts(), (2, 0), "(in force, refused)");
    drop(silent);
    store.close().await;
    write("one");
    assert_eq!(reload().await, (false, false), "(reloaded, new certificates)");
    assert_eq!(counts(), (2, 1), "(in force, refused)");
}

/// Opens the store of this file, as a start does.
fn start(file: PathBuf) -> (Reloader, Store) {
    let config = Config::load(&file).unwrap();
    let rules = config.configuration();
    let fence = Fence::new(Duration::from_millis(100));
    let (store, state) = Store::open(&config.store, rules, fence.clone()).unwrap();
    let metrics = Metrics::new(store.metrics());
    let log = AccessLog::start(crate::proxy::access_log::LogTarget::Off, metrics.clone()).unwrap();
    let shown = ActiveCertificates::load(&config, metrics.clone()).unwrap();
    let limits = watch::channel(config.server.limits.clone()).0;
    let reloader = Reloader {
        file,
        text: Mutex::new(config.annotated_text()),
        present: AsyncMutex::new(config),
        store: store.clone(),
        state,
        fence,
        metrics,
        log,
        limits,
        drain_delay: Mutex::default(),
        drain_time: Mutex::default(),
        certificates: shown,
        supervisor: Supervisor::of(Signals::Ignored),
        keyring: Arc::default(),
        budgets: [Budgets::for_process(), Budgets::for_process()],
        own: OwnAddresses::default(),
        has_orphans: AtomicBool::default(),
        key_failures: LogThrottle::default(),
    };
    (reloader, store)
}

#[tokio::test]
async fn new_authority_of_an_upstream_brings_no_other_change() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("gateway.toml");
    let listen = "listen = [\"127.0.0.1:0\"]";
    let upstream = "[upstream.one]\nurls = [\"https://127.0.0.1:1\"]\ntls = { ca = \"ca.pem\" }";
    let service = "[service.one]\nupstream = \"one\"\npaths = [\"/\"]\nauthorization = \"file:credential\"";
    std::fs::write(
        &file,
        format!("version = 1\n[server]\n{listen}\n[admin]\n{listen}\n{upstream}\n{service}\n"),
    )
    .unwrap();
    let write = |authority: &str, credential: &str| {
        let certs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/net/certs");
        std::fs::copy(certs.join(authority), dir.path().join("ca.pem")).unwrap();
        std::fs::write(dir.path().join("credential"), credential).unwrap();
    };
    write("one.crt", "Basic first");
    let (reloader, store) = start(file);
    let in_force = || {
        let snapshot = reloader.state.snapshot();
        let spec = &snapshot.rules.services()[0].spec;
        (snapshot.proxy.upstreams["one"].tls.clone(), spec.authorization.clone())
    };
    let before = in_force();
    write("two.crt", "Basic second");
    reloader.refresh_upstreams(&mut *reloader.present.lock().await).await;
    let after = in_force();
    assert!(before.0 != after.0, "the authority is another one");
    assert_eq!(before.1, after.1, "the credential waits for a reload");
    store.close().await;
}
