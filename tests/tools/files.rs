//! Tools for files and state: git, restic, rclone.

use std::{
    fs,
    net::SocketAddr,
    process::{Command, Stdio},
};

use crate::{
    support::stage::{self, run},
    tools::{BASIC, Tools, assert_prints, fails, upstream},
};

#[test]
#[ignore = "needs git; .ci/run runs it"]
fn git_clones_and_pushes() {
    let root = tempfile::tempdir().unwrap();
    run(Command::new("git").args(["init", "-q", "--bare", "-b", "main"]).arg(root.path().join("app.git")));
    run(Command::new("git").arg("-C").arg(root.path().join("app.git")).args([
        "config",
        "http.receivepack",
        "true",
    ]));
    let (_server, address) = upstream("git", root.path());
    let reads = "read_methods = [\"GET\", \"HEAD\", \"OPTIONS\", \"POST */git-upload-pack\"]";
    let tools = Tools::in_front_of(address, "\"/git\"", &format!("{BASIC}\n{reads}"));
    let url = |token: &str| format!("http://git:{token}@{}/git/app.git", tools.at());
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "protocol.version=2"]);
        command.args(arguments).env("GIT_TERMINAL_PROMPT", "0").env("HOME", tools.dir.path());
        command
    };
    let clone =
        |token: &str, name: &str| git(&["clone", "-q", &url(token), tools.place(name).to_str().unwrap()]);
    run(&mut clone(&tools.full, "one"));
    let one = tools.place("one").display().to_string();
    run(&mut git(&["-C", &one, "commit", "-q", "--allow-empty", "-m", "first"]));
    run(&mut git(&["-C", &one, "push", "-q", "origin", "HEAD:main"]));
    // A read-only token can clone; no repository had to be configured.
    run(&mut clone(&tools.read, "two"));
    // For a refused push, git prints only the status.
    run(&mut git(&["-C", &one, "commit", "-q", "--allow-empty", "-m", "second"]));
    let said = fails(&mut git(&["-C", &one, "push", "-q", &url(&tools.read), "HEAD:main"]));
    assert_prints("read-only", "git", &said, "403");
    for (row, token, expected) in &tools.bad {
        let said = fails(&mut clone(token, row));
        assert_prints(row, "git", &said, expected);
        assert!(said.contains("remote: "), "{said}");
    }
}

#[test]
#[ignore = "needs restic and rclone of apt; .ci/run runs it"]
fn restic_and_rclone_store_files() {
    let (dir, address) = (tempfile::tempdir().unwrap(), stage::vacant());
    let serve = |kind: &str, address: SocketAddr, more: &[&str]| {
        let place = dir.path().join(kind);
        fs::create_dir_all(&place).unwrap();
        let mut command = Command::new("rclone");
        command.args(["serve", kind, "--addr", &address.to_string()]).args(more).arg(place);
        stage::listening(command.stderr(Stdio::null()), address)
    };
    let _server = serve("restic", address, &["--baseurl", "/backup"]);
    let tools = Tools::in_front_of(address, "\"/backup\"", BASIC);
    fs::write(tools.place("file"), "kept").unwrap();
    let restic = |token: &str, arguments: &[&str]| {
        let mut command = Command::new("restic");
        command.arg("-r").arg(format!("rest:http://alice:{token}@{}/backup/", tools.at())).args(arguments);
        command.env("RESTIC_PASSWORD", "secret").env("HOME", tools.dir.path());
        command
    };
    run(&mut restic(&tools.full, &["init", "-q"]));
    run(restic(&tools.full, &["backup", "-q"]).arg(tools.place("file")));
    assert_prints("good", "restic", &run(&mut restic(&tools.full, &["ls", "latest"])), "file");
    for (row, token, expected) in &tools.bad {
        assert_prints(row, "restic", &fails(&mut restic(token, &["snapshots", "--no-lock"])), expected);
    }

    let address = stage::vacant();
    let _server = serve("webdav", address, &["--baseurl", "/dav"]);
    let reads = "read_methods = [\"GET\", \"HEAD\", \"OPTIONS\", \"PROPFIND\"]";
    let tools = Tools::in_front_of(address, "\"/dav\"", &format!("{BASIC}\n{reads}"));
    fs::write(tools.place("file"), "kept").unwrap();
    let rclone = |token: &str, arguments: &[&str]| {
        let mut command = Command::new("rclone");
        command.args(arguments).env("RCLONE_CONFIG_DAV_TYPE", "webdav").env("HOME", tools.dir.path());
        command.env("RCLONE_CONFIG_DAV_URL", format!("http://{}/dav", tools.at()));
        command.env("RCLONE_CONFIG_DAV_USER", "alice").args(["--retries", "1", "--low-level-retries", "1"]);
        command.env("RCLONE_CONFIG_DAV_PASS", run(Command::new("rclone").args(["obscure", token])).trim());
        command
    };
    let file = tools.place("file").display().to_string();
    run(&mut rclone(&tools.full, &["copy", &file, "dav:"]));
    assert_prints("read", "rclone", &run(&mut rclone(&tools.read, &["ls", "dav:"])), "4 file");
    fs::write(tools.place("file"), "changed").unwrap();
    let said = fails(&mut rclone(&tools.read, &["copy", &file, "dav:"]));
    assert_prints("read-only", "rclone", &said, "The access token is read-only for this service");
    for (row, token, expected) in &tools.bad {
        assert_prints(row, "rclone", &fails(&mut rclone(token, &["ls", "dav:"])), expected);
    }
}
