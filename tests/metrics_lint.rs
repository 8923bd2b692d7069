//! `/metrics` of a gateway that has served requests, checked by Prometheus' own linter.
//!
//! The linter needs promtool (Debian's package prometheus), so it is ignored by default and run by `.ci/run`.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use support::{gateway::Gateway, upstream::Upstream};

#[test]
fn reload_switches_old_names_off() {
    let services = Gateway::services("127.0.0.1:1".parse().unwrap());
    let gateway = Gateway::with(&services);
    let old_names = || {
        let page = gateway.operator("GET", "/metrics", None);
        page.text().lines().filter(|line| line.contains("Deprecated: use ")).count()
    };
    assert!(old_names() > 0);
    gateway.write(&format!("{services}[metrics]\nold_names = false\n"));
    gateway.must("POST", "/v1/reload", None);
    assert_eq!(old_names(), 0);
}

#[test]
fn every_metric_is_documented() {
    let services = Gateway::services("127.0.0.1:1".parse().unwrap());
    let gateway = Gateway::with(&format!("{services}[metrics]\nold_names = false\n"));
    let pages = concat!(include_str!("../docs/metrics.md"), include_str!("../docs/cluster.md"));
    let page = gateway.operator("GET", "/metrics", None);
    let names = page.text().lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    // The name ends there or has labels: `permgate_tokens_imported` does not document `permgate_tokens`.
    let is_documented = |name: &&str| ["`", "{"].iter().any(|end| pages.contains(&format!("`{name}{end}")));
    let missing: Vec<_> = names.filter(|name| !is_documented(name)).collect();
    assert!(missing.is_empty(), "not in docs/metrics.md: {missing:?}");
}

/// Without it, tests are skipped, but not in continuous integration.
fn has_promtool() -> bool {
    let Err(why) = Command::new("promtool").arg("--version").stdout(Stdio::null()).status() else {
        return true;
    };
    assert!(std::env::var_os("PERMGATE_CI").is_none(), "PERMGATE_CI is set, but promtool: {why}");
    println!("SKIPPED: promtool: {why}");
    false
}

/// Each alert fires on what it claims.
#[test]
#[ignore = "needs promtool; .ci/run runs it"]
fn alerts_fire() {
    if !has_promtool() {
        return;
    }
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/prometheus");
    let rules = std::fs::read_to_string(format!("{directory}/rules.yml")).unwrap();
    let tested = std::fs::read_to_string(format!("{directory}/rules_test.yml")).unwrap();
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(tested.contains(&format!("alertname=\"{alert}\"")), "rules_test.yml has no test of {alert}");
    }
    let mut promtool = Command::new("promtool");
    let run = promtool.args(["test", "rules", "rules_test.yml"]).current_dir(directory).output().unwrap();
    let output = [run.stdout, run.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(run.status.success(), "{output}");
}

#[test]
#[ignore = "needs promtool; .ci/run runs it"]
fn promtool_reports_no_problems() {
    if !has_promtool() {
        return;
    }
    let upstream = Upstream::plain();
    let address = upstream.address;
    let gateway = Gateway::with(&format!(
        r#"
[metrics]
old_names = false
[upstream.app]
urls = ["http://{address}"]
max_in_flight = 10
max_connections = 10
[service.tracker]
upstream = "app"
paths = ["/api"]
readers = ["developers"]
"#
    ));
    gateway.developer("ann");
    let (id, token) = gateway.token("ann", "ci", &["tracker"]);
    assert_eq!(gateway.get("/api/issues", Some(&token)).status, 200);
    gateway.must("DELETE", &format!("/v1/tokens/{id}"), None);
    for (target, token, status) in
        [("/api/issues", Some(&*token), 401), ("/api", None, 401), ("/no", None, 401)]
    {
        assert_eq!(gateway.get(target, token).status, status, "{target}");
    }
    let page = gateway.operator("GET", "/metrics", None);
    let sample =
        r#"permgate_requests_total{service="tracker",outcome="forwarded",reason="ok",status_class="2xx"} 1"#;
    assert!(page.text().lines().any(|line| line == sample), "{}", page.text());

    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(page.text().as_bytes()).unwrap();
    let checked = promtool.wait_with_output().unwrap();
    let findings = [checked.stdout, checked.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(checked.status.success(), "{}{}\nin\n{}", findings[0], findings[1], page.text());
    assert_eq!(findings.concat(), "", "{}", page.text());
}
