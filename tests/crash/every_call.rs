//! SIGKILL, EIO and ENOSPC at every system call that changes the disk, in each command that creates or
//! replaces a store: a complete store is at the path afterwards. Each run samples a few calls;
//! `PERMGATE_TEST_EVERY_CALL=1` tries all of them.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use serde_json::{Value, json};

use crate::{faults::with_fault, installation::Installation};

/// The system calls that change the disk. A kill between two of them leaves the same state as at the second.
const CHANGES: &str = "?open,openat,?creat,?mkdir,mkdirat,write,pwrite64,writev,pwritev,ftruncate,fallocate,fsync,\
                       fdatasync,sync_file_range,?rename,renameat,renameat2,?unlink,unlinkat,?rmdir,?chmod,fchmod,\
                       fchmodat";
/// How many calls of each command are tried, unless all are requested.
const SAMPLE: usize = 10;

/// The content of a store, except for what depends on the time of a restore.
fn content(installation: &Installation, what: &str) -> Value {
    let records = |line: &str, fields: &[&str]| {
        let (code, words) = installation.run_command(line);
        assert_eq!(code, Some(0), "{what}: {line}: {words}");
        let records: Value =
            serde_json::from_str(&words).unwrap_or_else(|e| panic!("{what}: {line}: {e}: {words}"));
        let records = records.as_array().unwrap().iter();
        records
            .map(|record| fields.iter().map(|field| record[field].clone()).collect())
            .collect::<Vec<Value>>()
    };
    json!({
        "tokens": records("--offline -o json token list", &["id", "name", "state"]),
        "users": records("--offline -o json user list", &["login", "banned"]),
    })
}

/// The faults that are injected at a call, or from a call on.
const FAULTS: [&str; 3] = ["signal=SIGKILL:when={}", "error=EIO:when={}", "error=ENOSPC:when={}+"];

/// Runs the line on copies of `before` with a fault at one call after another. The store must then be one of
/// `wholes`, unless that is empty; `check` tests the rest.
fn faults_at_every_call(
    before: &Installation,
    line: &str,
    wholes: &[Value],
    check: impl Fn(&Installation, &str) + Sync,
) {
    let Some((status, calls)) = with_fault(CHANGES, "", &duplicate(before).command(line)) else { return };
    assert!(status.success(), "{line}: {status}");
    assert!(calls > 30, "{line}: {calls} calls");
    let all = std::env::var_os("PERMGATE_TEST_EVERY_CALL").is_some();
    let runs: Vec<(usize, &str)> =
        (1..=calls).flat_map(|number| FAULTS.map(|fault| (number, fault))).collect();
    let step = if all { 1 } else { runs.len() / SAMPLE };
    let (next, killed) = (AtomicUsize::new(step), AtomicUsize::new(0));
    let work = || {
        while let Some((number, fault)) = runs.get(next.fetch_add(step, Ordering::Relaxed)) {
            let fault = fault.replace("{}", &number.to_string());
            let what = format!("{line}: {fault} of {calls}");
            let installation = duplicate(before);
            let Some((status, _)) = with_fault(CHANGES, &fault, &installation.command(line)) else { return };
            // Threads share the work differently in each run, so one may end before its call.
            killed.fetch_add(usize::from(!status.success()), Ordering::Relaxed);
            check(&installation, &what);
            // The state as it was left, before a command completes it.
            let (code, words) = installation.run_command("--offline store verify");
            let none_yet = words.contains("there is no store") || words.contains("first release");
            assert!(code == Some(0) || none_yet, "{what}: {words}");
            if words.contains("there is no store") {
                // Commands that only read create no store.
                installation.must(line);
            }
            let found = content(&installation, &what);
            assert!(wholes.contains(&found), "{what}: {found:#}");
            let (code, words) = installation.run_command("--offline store verify");
            assert_eq!(code, Some(0), "{what}: {words}");
            check(&installation, &what);
        }
    };
    thread::scope(|scope| {
        scope.spawn(work);
        work();
    });
    let killed = killed.into_inner();
    println!("{line}: {calls} calls, {killed} runs were cut off");
    assert!(killed > 0, "{line}: hardly ever cut off");
}

fn duplicate(of: &Installation) -> Installation {
    let installation = Installation::new();
    copy(of.path(), installation.path());
    installation
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => copy(&path, &to),
            kind if kind.is_file() => drop(fs::copy(&path, &to).unwrap()),
            // Skip sockets.
            _ => {}
        }
    }
}

/// An installation with users, tokens, a backup, and later changes. Returns the content of both states.
fn with_backup() -> (Installation, [Value; 2]) {
    let installation = Installation::new();
    let process = installation.run();
    process.user("ann");
    process.user("bob");
    let tokens: Vec<_> = (0..5).map(|number| process.token("ann", &format!("token {number}"))).collect();
    installation.must("store backup old.backup");
    process.must("DELETE", &format!("/v1/tokens/{}", tokens[0].0), None);
    process.must("POST", "/v1/users/bob/ban", Some(&json!({"reason": "left"})));
    process.token("ann", "later");
    process.stop();
    let present = content(&installation, "present");
    let restored = duplicate(&installation);
    restored.must("store restore old.backup");
    let restored = content(&restored, "restored");
    assert_ne!(present, restored);
    assert!(restored.to_string().contains("revoked"), "{restored}");
    (installation, [present, restored])
}

#[test]
fn interrupted_restore_is_all_or_nothing() {
    let (installation, wholes) = with_backup();
    faults_at_every_call(&installation, "store restore old.backup", &wholes, |_, _| {});
}

#[test]
fn interrupted_backup_is_complete_or_absent() {
    let (installation, [present, _]) = with_backup();
    let line = "--offline store backup new.backup";
    faults_at_every_call(&installation, line, std::slice::from_ref(&present), |installation, what| {
        let made = installation.path().join("new.backup");
        if !made.exists() {
            return;
        }
        let other = duplicate(installation);
        fs::remove_dir_all(other.path().join("data")).unwrap();
        let (code, words) = other.run_command("store restore --accept-lost-revocations new.backup");
        assert_eq!(code, Some(0), "{what}: {words}");
        assert_eq!(content(&other, what), present, "{what}");
    });
}

#[test]
fn interrupted_creation_restarts_or_is_complete() {
    let installation = Installation::new();
    let empty = json!({"tokens": [], "users": []});
    faults_at_every_call(&installation, "--offline group create staff", &[empty], |_, _| {});
}

#[test]
fn interrupted_migration_is_all_or_nothing() {
    let installation = Installation::new();
    copy(
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/store-b654cb1/store")),
        &installation.path().join("data"),
    );
    let migrated = duplicate(&installation);
    let whole = content(&migrated, "migrated");
    assert_eq!(whole["users"].as_array().unwrap().len(), 4, "{whole:#}");
    faults_at_every_call(
        &installation,
        "--offline user list",
        std::slice::from_ref(&whole),
        |installation, what| {
            // Until the new generation is in use, the old data is complete; then it is kept beside it.
            let data = installation.path().join("data");
            let old = [data.join("data/db"), data.join("released/data/db")];
            assert!(old.iter().any(|file| file.exists()), "{what}: the released data is gone");
        },
    );
}
