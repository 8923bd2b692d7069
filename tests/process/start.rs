//! What a second process is told; the first one is not affected.

use std::{
    io::{BufRead as _, BufReader},
    os::unix::{
        fs::{PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    process::{Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    harness::{TestDirectory, services},
    support::upstream::Upstream,
};

#[test]
fn a_second_instance_is_refused() {
    let upstream = Upstream::plain();
    let directory = TestDirectory::new(&services(upstream.address));
    let process = directory.run();
    let token = directory.token("alice", "tracker");
    let other = TestDirectory::new(&services(upstream.address));
    let check = |row: &str, directory: &TestDirectory, says: &[&str]| {
        let (data, words) = directory.check("run", 1);
        assert_eq!(data, "", "{row}");
        assert!(says.iter().all(|part| words.contains(part)), "{row}: {words}");
        assert!(!words.contains("panicked"), "{row}: {words}");
        assert_eq!(process.status("/api/x", &token), 200, "{row}: the first one serves");
        assert_eq!(process.operator("GET", "/readyz", None).status, 200, "{row}");
    };
    check("the same store", &directory, &["the store data is in use by process"]);
    let first = "listen = [\"127.0.0.1:0\"]";
    other.write_all(&other.read().replace(first, &format!("listen = [\"{}\"]", process.proxy)));
    check("the same port", &other, &[&process.proxy.to_string(), "in use"]);
    other.write(&services(upstream.address));
    let socket = format!("unix:{}", directory.path().join("permgate.sock").display());
    other.write_all(&other.read().replace("unix:permgate.sock", &socket));
    check("the same unix socket", &other, &[&socket, "in use"]);
    let admin = format!("\"{}\"]", process.admin);
    other.write(&services(upstream.address));
    other.write_all(&other.read().replace("\"127.0.0.1:0\"]\n[store]", &format!("{admin}\n[store]")));
    check("the same admin port", &other, &[&process.admin.to_string(), "in use"]);
}

#[test]
fn restart_after_a_kill_succeeds() {
    let upstream = Upstream::plain();
    let directory = TestDirectory::new(&services(upstream.address));
    let process = directory.run();
    let token = directory.token("alice", "tracker");
    drop(process);
    assert!(directory.path().join("permgate.sock").exists(), "killed before it could tidy up");
    let process = directory.run();
    assert_eq!(process.status("/api/x", &token), 200, "what was acknowledged is there");
}

const NOBODY: u32 = 65534;

/// A directory of another user, with a copy of the binary that this user can run.
fn owned_by_nobody(upstream: &Upstream) -> TestDirectory {
    let directory = TestDirectory::new(&services(upstream.address));
    // By another process: what tests start meanwhile would inherit the open file, and nobody could run it.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_permgate")).arg(directory.path()).status();
    assert!(copied.unwrap().success());
    chown(directory.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    directory
}

/// A command of the binary in the directory, run by this user.
fn command_as(directory: &TestDirectory, line: &str, uid: u32) -> Command {
    let mut command = directory.clean_command(directory.path().join("permgate").to_str().unwrap());
    command.args(line.split(' ')).uid(uid).gid(uid);
    command
}

/// Without core dumps, /proc/self belongs to root, so the operator is identified by the process's own user.
#[test]
fn operator_is_the_user_of_the_server_process() {
    if !rustix::process::geteuid().is_root() {
        // Then every other test of this suite shows it.
        return;
    }
    let upstream = Upstream::plain();
    let directory = owned_by_nobody(&upstream);
    let command = |line: &str| command_as(&directory, line, NOBODY);
    let mut process = directory.start(command("run"));
    assert!(command("user list").status().unwrap().success());
    let mut other = command("user list");
    std::fs::set_permissions(directory.path().join("permgate.sock"), std::fs::Permissions::from_mode(0o666))
        .unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(
        other.uid(NOBODY - 1).gid(NOBODY - 1).status().unwrap().code(),
        Some(3),
        "another user is none"
    );
    process.stop();
}

/// If root opens the store of another user, both root and that user are told what to do.
#[test]
fn what_root_makes_in_the_store_of_another_user_is_told() {
    if !rustix::process::geteuid().is_root() {
        // Nobody else can make files in the store of another user.
        return;
    }
    let upstream = Upstream::plain();
    let directory = owned_by_nobody(&upstream);
    let command = |line: &str, uid: u32| command_as(&directory, line, uid);
    let told = |mut command: Command| {
        let done = command.output().unwrap();
        (done.status.code(), String::from_utf8(done.stderr).unwrap())
    };
    let (code, said) = told(command("--offline group create one", NOBODY));
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("warning"), "{said}");
    let (code, said) = told(command("--offline group create two", 0));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("the gateway of nobody cannot open what root has created in"), "{said}");
    let (code, said) = told(command("run", NOBODY));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("files of it are not nobody's: as root, chown -R nobody "), "{said}");
}

/// A rotation of logs or a reload that comes while the store is opened does not end the process.
#[test]
fn signals_during_the_start_wait_for_it() {
    let upstream = Upstream::plain();
    let directory = TestDirectory::new(&format!("[log]\naccess = \"pipe\"\n{}", services(upstream.address)));
    let pipe = directory.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    // The start waits for a reader of the pipe.
    let mut child = directory.command().arg("run").stderr(Stdio::piped()).spawn().unwrap();
    while !directory.path().join("data/CURRENT").exists() {
        assert!(child.try_wait().unwrap().is_none(), "it has ended");
        std::thread::yield_now();
    }
    let process = Pid::from_child(&child);
    for signal in [Signal::HUP, Signal::USR1, Signal::USR2] {
        kill_process(process, signal).unwrap();
    }
    let reader = std::thread::spawn(move || std::fs::read(pipe));
    let words = BufReader::new(child.stderr.take().unwrap());
    let mut words = words.lines().map_while(Result::ok);
    assert!(words.any(|line| line.contains("\"ready\"")));
    assert!(words.any(|line| line.contains("configuration reloaded")), "the reload comes after the start");
    kill_process(process, Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    reader.join().unwrap().unwrap();
}
