//! A change of the store is synced to disk between its request and its answer, as the
//! system calls of the real process show.

use std::process::Command;

use crate::{
    harness::{TestDirectory, services},
    support::upstream::Upstream,
};

/// If set, a tracer must be available.
const REQUIRED: &str = "PERMGATE_CI";

const CALLS: &str = "trace=recvfrom,recvmsg,read,sendto,sendmsg,write,writev,pwrite64,fdatasync,fsync";

#[test]
fn an_admin_write_is_synced_before_it_is_answered() {
    if let Err(why) = tracer() {
        assert!(std::env::var_os(REQUIRED).is_none(), "{REQUIRED} is set and {why}");
        eprintln!("SKIPPED: {why}");
        return;
    }
    let upstream = Upstream::plain();
    let directory = TestDirectory::new(&services(upstream.address));
    let trace = directory.path().join("trace");
    // -D makes strace a grandchild, so that the child is the gateway; -y names descriptors.
    let mut command = directory.clean_command("strace");
    command.args(["-D", "-f", "-tt", "-y", "-s", "48", "-e", CALLS, "-o"]).arg(&trace);
    command.arg(env!("CARGO_BIN_EXE_permgate")).arg("run");
    let mut process = directory.start(command);
    let call = |method: &str, target: &str, body: Option<&str>| {
        let answer = process.operator(method, target, body);
        assert!(answer.status < 300, "{method} {target}: {} {}", answer.status, answer.text());
        (format!("{method} {target} HTTP/1.1"), format!("HTTP/1.1 {}", answer.status), answer)
    };
    let mut changes = vec![
        call("POST", "/v1/users", Some(r#"{"login": "alice"}"#)),
        call("POST", "/v1/groups", Some(r#"{"name": "developers"}"#)),
        call("PUT", "/v1/groups/developers/members/alice", None),
    ];
    let scope = r#"{"name": "ci", "scope": [{"service": "tracker"}]}"#;
    changes.push(call("POST", "/v1/users/alice/tokens", Some(scope)));
    let id = changes.last().unwrap().2.json()["id"].as_str().unwrap().to_owned();
    changes.push(call("DELETE", &format!("/v1/tokens/{id}"), None));
    process.stop();

    let trace = std::fs::read_to_string(trace).unwrap();
    let lines: Vec<&str> = trace.lines().collect();
    let mut from = 0;
    for (request, answer, _) in changes {
        let find = |what: &str, from: usize, wanted: &dyn Fn(&str) -> bool| {
            let found = lines[from..].iter().position(|line| wanted(line)).map(|at| from + at);
            found.unwrap_or_else(|| panic!("{request}: no {what} behind line {from} of\n{trace}"))
        };
        let arrival =
            find("arrival", from, &|line| line.contains(&format!("\"{}", &request[..request.len().min(40)])));
        let answered = find("answer", arrival, &|line| {
            line.contains(&format!("\"{answer}"))
                && ["sendto(", "write(", "writev(", "sendmsg("].iter().any(|c| line.contains(c))
        });
        let written = find("write of the store", arrival, &|line| {
            line.contains("pwrite64(") && line.contains("/data/") && line.contains("/journal-")
        });
        let asked = find("sync of the store", written, &|line| {
            line.contains("fdatasync(") && line.contains("/data/") && line.contains("/journal-")
        });
        let thread = lines[asked].split(' ').next().unwrap();
        let synced = find("end of the sync", asked, &|line| {
            line.starts_with(thread) && line.contains("fdatasync") && line.ends_with("= 0")
        });
        assert!(
            synced < answered,
            "{request}: answered before the sync has ended\n{}",
            lines[arrival..=synced].join("\n")
        );
        from = answered;
    }
}

/// Whether a process may be traced here.
fn tracer() -> Result<(), String> {
    match Command::new("strace").args(["-o", "/dev/null", "true"]).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            Err(format!("strace may not trace: {}", String::from_utf8_lossy(&output.stderr).trim()))
        }
        Err(error) => Err(format!("strace does not run: {error}")),
    }
}
