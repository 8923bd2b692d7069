//! The admin listener does what it documents: schemathesis generates requests from `/openapi.json` and checks
//! every response against it. No response is a 500.
//!
//! Installs schemathesis from PyPI, so it is ignored by default and run by `.ci/run`.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use support::gateway::Gateway;

const VERSION: &str = "schemathesis==4.32.5";

/// The checks of each response.
const CHECKS: &str =
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";

/// A backup is a stream of bytes, and a reload always loads the same file.
const LEFT_OUT: &str = "backup|reload";

#[test]
#[ignore = "installs schemathesis from PyPI; .ci/run runs it"]
fn every_response_matches_the_openapi_document() {
    let program = match install() {
        Ok(program) => program,
        Err(why) => {
            assert!(std::env::var_os("PERMGATE_CLIENTS").is_none(), "schemathesis is required: {why}");
            println!("SKIPPED: schemathesis cannot be installed here: {why}");
            return;
        }
    };
    let nobody = "127.0.0.1:1".parse().unwrap();
    let gateway = Gateway::start(nobody);
    gateway.developer("boss");
    gateway.must("POST", "/v1/grants", Some(r#"{"role": "system-admin", "user": "boss"}"#));
    let (_, token) = gateway.token("boss", "schemathesis", &["permgate", "tracker", "hub"]);
    let output = Command::new(program)
        .arg("run")
        .arg(format!("http://{}/openapi.json", gateway.admin))
        .arg("-H")
        .arg(format!("Authorization: Bearer {token}"))
        .args(["--checks", CHECKS, "--exclude-path-regex", LEFT_OUT])
        .args(["--phases", "examples,fuzzing", "--max-examples", "10", "--seed", "1"])
        .args(["--no-color", "--continue-on-failure"])
        .current_dir(gateway.dir.path())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(told.contains("Tested: 6"), "it asked for less than there is: {told}");
}

fn install() -> Result<PathBuf, String> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("schemathesis");
    let program = dir.join("bin/schemathesis");
    if !program.exists() {
        std::fs::create_dir_all(&dir).unwrap();
        run(Command::new("python3").args(["-m", "venv"]).arg(&dir))?;
        run(Command::new(dir.join("bin/pip")).args(["install", "-q", VERSION]))?;
    }
    Ok(program)
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}
