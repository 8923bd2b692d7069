//! The tools of pipelines through the gateway, each with the carrier that it can use: they work with a good
//! token, and print our words for a bad, a wrong and a revoked one, as far as they print any.
//!
//! Needs packages from apt, npm and PyPI, so it is ignored by default and run by `.ci/run`.

#![allow(clippy::unwrap_used, reason = "a test says so by failing")]

mod support;

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use support::{
    gateway::Gateway,
    stage::{self, Ended, run},
};

/// A gateway in front of one upstream, and tokens of alice's for its service `tools`.
struct Tools {
    gateway: Gateway,
    dir: tempfile::TempDir,
    full: String,
    read: String,
    /// (what is wrong with it, the text, what a tool that prints anything prints)
    bad: Vec<(&'static str, String, &'static str)>,
}

impl Tools {
    /// `keys`: more of the service, whose paths are given.
    fn before(upstream: SocketAddr, paths: &str, keys: &str) -> Self {
        let service = |name: &str, paths: &str, keys: &str| {
            format!(
                "[service.{name}]\nupstream = \"one\"\npaths = [{paths}]\nreaders = [\"developers\"]\n{keys}\n"
            )
        };
        let upstreams = format!("[upstream.one]\nurls = [\"http://{upstream}\"]\n");
        let gateway = Gateway::with(
            &[upstreams, service("tools", paths, keys), service("other", "\"/other\"", "")].concat(),
        );
        gateway.developer("alice");
        let token = |name: &str, scope: &str| gateway.token("alice", name, &[scope]);
        let (id, revoked) = token("revoked", "tools");
        gateway.must("DELETE", &format!("/v1/tokens/{id}"), None);
        let mut mistyped = token("mistyped", "tools").1;
        let last = mistyped.pop().unwrap();
        mistyped.push(if last == '0' { '1' } else { '0' });
        let bad = vec![
            ("mistyped", mistyped, "The access token is malformed"),
            ("wrong", token("wrong", "other").1, "The access token is not granted for this service"),
            ("revoked", revoked, "The access token was revoked"),
        ];
        let (full, read) = (token("full", "tools").1, token("read", "tools:read").1);
        Self { gateway, dir: tempfile::tempdir().unwrap(), full, read, bad }
    }

    fn at(&self) -> SocketAddr {
        self.gateway.proxy
    }

    fn place(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// This test's own upstream in one of its modes.
fn upstream(mode: &str, directory: &Path) -> (Ended, SocketAddr) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tools/upstream.py");
    let command = Command::new("python3").arg(script).arg(mode).arg(directory).stdout(Stdio::piped()).spawn();
    let mut server = Ended(command.unwrap());
    let mut port = String::new();
    BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut port).unwrap();
    (server, ([127, 0, 0, 1], port.trim().parse::<u16>().unwrap()).into())
}

/// What the command prints; it must fail.
fn fails(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(!output.status.success(), "{command:?} succeeds: {text}");
    text
}

/// Lines that a tool wraps are one.
fn prints(row: &str, tool: &str, said: &str, expected: &str) {
    let plain = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(plain.contains(expected), "{tool}, {row}: {expected:?} is not in {said}");
}

const BASIC: &str = "credentials = [\"bearer\", \"basic\"]";

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
    let tools = Tools::before(address, "\"/git\"", &format!("{BASIC}\n{reads}"));
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
    // A read-only token clones; no repository had to be named.
    run(&mut clone(&tools.read, "two"));
    // Of a refused push git prints the status alone.
    run(&mut git(&["-C", &one, "commit", "-q", "--allow-empty", "-m", "second"]));
    let said = fails(&mut git(&["-C", &one, "push", "-q", &url(&tools.read), "HEAD:main"]));
    prints("read-only", "git", &said, "403");
    for (row, token, expected) in &tools.bad {
        let said = fails(&mut clone(token, row));
        prints(row, "git", &said, expected);
        assert!(said.contains("remote: "), "{said}");
    }
}

#[test]
#[ignore = "installs verdaccio from npm; .ci/run runs it"]
fn npm_publishes_and_installs() {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("verdaccio");
    fs::create_dir_all(&place).unwrap();
    if !place.join("node_modules/.bin/verdaccio").exists() {
        // It asks for a tag of node-fetch that not every mirror has.
        let manifest = r#"{"private": true, "dependencies": {"verdaccio": "6.1.2"}, "overrides": {"node-fetch": "2.7.0"}}"#;
        fs::write(place.join("package.json"), manifest).unwrap();
        run(Command::new("npm").args(["install", "--no-audit", "--no-fund"]).current_dir(&place));
    }
    let dir = tempfile::tempdir().unwrap();
    let address = stage::vacant();
    let config = format!(
        "storage: {}\nlisten: {address}\nweb: {{enable: false}}\n\
         packages: {{'**': {{access: $all, publish: $all, unpublish: $all}}}}\nlog: {{type: stdout, level: error}}\n",
        dir.path().join("storage").display()
    );
    fs::write(dir.path().join("config.yaml"), config).unwrap();
    let mut verdaccio = Command::new(place.join("node_modules/.bin/verdaccio"));
    verdaccio.arg("--config").arg(dir.path().join("config.yaml")).stdout(Stdio::null());
    let _server = stage::listening(&mut verdaccio, address);
    // npm sends a bearer by itself.
    let tools = Tools::before(address, "\"/\"", "");
    let npm = |token: &str, directory: &str, arguments: &[&str]| {
        let place = tools.place(directory);
        fs::create_dir_all(&place).unwrap();
        let registry = format!("//{}/", tools.at());
        fs::write(place.join(".npmrc"), format!("registry=http:{registry}\n{registry}:_authToken={token}\n"))
            .unwrap();
        let mut command = Command::new("npm");
        command.args(arguments).current_dir(place).env("HOME", tools.dir.path());
        command.args(["--no-audit", "--no-fund", "--fetch-retries=0"]);
        command.env("npm_config_cache", tools.place("cache"));
        command
    };
    fs::create_dir_all(tools.place("package")).unwrap();
    let manifest = r#"{"name": "@acme/gated", "version": "1.0.0"}"#;
    fs::write(tools.place("package/package.json"), manifest).unwrap();
    run(&mut npm(&tools.full, "package", &["publish", "--access", "public"]));
    run(&mut npm(&tools.read, "user", &["install", "@acme/gated"]));
    assert!(tools.place("user/node_modules/@acme/gated/package.json").exists());
    let said = fails(&mut npm(&tools.read, "package", &["unpublish", "--force", "@acme/gated@1.0.0"]));
    prints("read-only", "npm", &said, "The access token is read-only for this service");
    for (row, token, expected) in &tools.bad {
        prints(row, "npm", &fails(&mut npm(token, row, &["view", "@acme/gated"])), expected);
    }
}

#[test]
#[ignore = "installs pypiserver and twine from PyPI; .ci/run runs it"]
fn pip_installs_what_twine_uploads() {
    let python = stage::python("pypi", &["pypiserver==2.3.2", "twine==6.1.0", "setuptools==75.8.0"]);
    let (packages, address) = (tempfile::tempdir().unwrap(), stage::vacant());
    let mut server = Command::new(python.with_file_name("pypi-server"));
    server.args(["run", "-i", "127.0.0.1", "-p", &address.port().to_string(), "-P", ".", "-a", "."]);
    let _server = stage::listening(server.arg(packages.path()).stderr(Stdio::null()), address);
    let tools = Tools::before(address, "\"/\"", BASIC);
    let source = tools.place("source");
    fs::create_dir_all(&source).unwrap();
    fs::write(source.join("gated.py"), "").unwrap();
    let setup = "from setuptools import setup\nsetup(name='gated', version='1.0.0', py_modules=['gated'])\n";
    fs::write(source.join("setup.py"), setup).unwrap();
    run(Command::new(&python).args(["setup.py", "-q", "sdist"]).current_dir(&source));
    let archive = fs::read_dir(source.join("dist")).unwrap().next().unwrap().unwrap().path();
    let twine = |token: &str| {
        let mut command = Command::new(python.with_file_name("twine"));
        let url = format!("http://{}/", tools.at());
        command.args([
            "upload",
            "--non-interactive",
            "--disable-progress-bar",
            "--verbose",
            "-u",
            "__token__",
        ]);
        command.args(["-p", token, "--repository-url", &url]).arg(&archive).env("HOME", tools.dir.path());
        command
    };
    let pip = |token: &str, target: &str| {
        let mut command = Command::new(python.with_file_name("pip"));
        let index = format!("http://__token__:{token}@{}/simple/", tools.at());
        let options =
            ["download", "--no-input", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"];
        command.args(options).args(["--no-cache-dir", "--trusted-host", "127.0.0.1", "-i", &index, "-vv"]);
        command.arg("-d").arg(tools.place(target)).arg("gated").env("HOME", tools.dir.path());
        command
    };
    run(&mut twine(&tools.full));
    run(&mut pip(&tools.read, "good"));
    for (row, token, expected) in &tools.bad {
        // twine shows the answer's body with --verbose; pip shows the status alone.
        prints(row, "twine", &fails(&mut twine(token)), expected);
        let status = if *row == "wrong" { "403" } else { "401" };
        prints(row, "pip", &fails(&mut pip(token, row)), status);
    }
}

#[test]
#[ignore = "needs cargo; .ci/run runs it"]
fn cargo_fetches_from_a_sparse_registry() {
    let files = tempfile::tempdir().unwrap();
    let (_server, address) = upstream("files", files.path());
    let tools =
        Tools::before(address, "\"/index\", \"/crates\", \"/api\"", "credentials = [\"bearer\", \"raw\"]");
    // The one crate of the registry.
    let source = tools.place("gated-1.0.0");
    fs::create_dir_all(source.join("src")).unwrap();
    fs::write(
        source.join("Cargo.toml"),
        "[package]\nname = \"gated\"\nversion = \"1.0.0\"\nedition = \"2024\"\n",
    )
    .unwrap();
    fs::write(source.join("src/lib.rs"), "").unwrap();
    for name in ["crates", "index/ga/te"] {
        fs::create_dir_all(files.path().join(name)).unwrap();
    }
    let archive = files.path().join("crates/gated-1.0.0.crate");
    run(Command::new("tar").arg("czf").arg(&archive).arg("-C").arg(tools.dir.path()).arg("gated-1.0.0"));
    let sum = run(Command::new("sha256sum").arg(&archive));
    let sum = sum.split(' ').next().unwrap();
    let entry = format!(
        r#"{{"name":"gated","vers":"1.0.0","deps":[],"cksum":"{sum}","features":{{}},"yanked":false}}"#
    );
    fs::write(files.path().join("index/ga/te/gated"), entry + "\n").unwrap();
    let at = tools.at();
    let config = format!(
        r#"{{"dl":"http://{at}/crates/{{crate}}-{{version}}.crate","api":"http://{at}","auth-required":true}}"#
    );
    fs::write(files.path().join("index/config.json"), config).unwrap();
    let project = tools.place("project");
    fs::create_dir_all(project.join("src")).unwrap();
    fs::write(project.join("src/lib.rs"), "").unwrap();
    let manifest = "[package]\nname = \"project\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\
                    [dependencies]\ngated = { version = \"1\", registry = \"gate\" }\n[workspace]\n";
    fs::write(project.join("Cargo.toml"), manifest).unwrap();
    let cargo = |token: &str, home: &str, arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO"));
        command.args(arguments).current_dir(&project).env("CARGO_HOME", tools.place(home));
        command.env("CARGO_REGISTRIES_GATE_INDEX", format!("sparse+http://{at}/index/"));
        command.env("CARGO_REGISTRIES_GATE_TOKEN", token).env("CARGO_NET_RETRY", "0");
        command.env("CARGO_REGISTRY_GLOBAL_CREDENTIAL_PROVIDERS", "cargo:token");
        command
    };
    // In clear text cargo asks for an upgrade to HTTP/2, which a read-only token may not.
    run(&mut cargo(&tools.full, "good", &["fetch"]));
    let found = run(&mut cargo(&tools.full, "good", &["search", "--registry", "gate", "gated"]));
    prints("good", "cargo", &found, "behind the gateway");
    run(&mut cargo(&tools.full, "good", &["yank", "--registry", "gate", "gated@1.0.0"]));
    for (row, token, expected) in &tools.bad {
        let _ = fs::remove_file(project.join("Cargo.lock"));
        prints(row, "cargo", &fails(&mut cargo(token, row, &["fetch"])), expected);
    }
}

#[test]
#[ignore = "needs skopeo and docker-registry of apt; .ci/run runs it"]
fn skopeo_signs_in_pushes_and_pulls() {
    let (dir, address) = (tempfile::tempdir().unwrap(), stage::vacant());
    let config = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{address}'}}\n",
        dir.path().join("images").display()
    );
    fs::write(dir.path().join("config.yml"), config).unwrap();
    let mut registry = Command::new("docker-registry");
    registry.arg("serve").arg(dir.path().join("config.yml")).stdout(Stdio::null()).stderr(Stdio::null());
    let _server = stage::listening(&mut registry, address);
    let tools = Tools::before(address, "\"/v2\"", "registry = true");
    let image = tools.place("image");
    oci_image(&image);
    let at = tools.at();
    let skopeo = |row: &str, arguments: &[&str]| {
        let mut command = Command::new("skopeo");
        command.args(arguments).env("REGISTRY_AUTH_FILE", tools.place(&format!("auth-{row}")));
        command
    };
    let login = |row: &str, token: &str| {
        skopeo(row, &["login", "--tls-verify=false", "-u", "alice", "-p", token, &at.to_string()])
    };
    let source = format!("oci:{}:latest", image.display());
    let target = format!("docker://{at}/acme/app:latest");
    let push = ["--insecure-policy", "copy", "-q", "--dest-tls-verify=false", &source, &target];
    let inspect = ["--insecure-policy", "inspect", "--tls-verify=false", &target];
    run(&mut login("full", &tools.full));
    run(&mut skopeo("full", &push));
    run(&mut login("read", &tools.read));
    prints("read", "skopeo", &run(&mut skopeo("read", &inspect)), "sha256:");
    prints("read-only", "skopeo", &fails(&mut skopeo("read", &push)), "The access token is read-only");
    for (row, token, expected) in &tools.bad {
        fails(&mut login(row, token));
        let creds = format!("alice:{token}");
        prints(row, "skopeo", &fails(skopeo(row, &inspect).args(["--creds", &creds])), expected);
    }
    let said = fails(&mut skopeo("nobody", &inspect));
    prints("nothing", "skopeo", &said, "No access token was sent");
}

/// The smallest image in OCI's layout.
fn oci_image(place: &Path) {
    let blobs = place.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let blob = |bytes: &[u8]| {
        let file = blobs.join("new");
        fs::write(&file, bytes).unwrap();
        let sum = run(Command::new("sha256sum").arg(&file));
        let sum = sum.split(' ').next().unwrap().to_owned();
        fs::rename(file, blobs.join(&sum)).unwrap();
        (sum, bytes.len())
    };
    fs::write(place.join("empty"), "").unwrap();
    run(Command::new("tar").arg("cf").arg(place.join("layer")).arg("-C").arg(place).arg("empty"));
    let bytes = fs::read(place.join("layer")).unwrap();
    let (layer, layer_size) = blob(&bytes);
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["sha256:{layer}"]}}}}"#
    );
    let (config, config_size) = blob(config.as_bytes());
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:{config}","size":{config_size}}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:{layer}","size":{layer_size}}}]}}"#
    );
    let (manifest, manifest_size) = blob(manifest.as_bytes());
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:{manifest}","size":{manifest_size},"annotations":{{"org.opencontainers.image.ref.name":"latest"}}}}]}}"#
    );
    fs::write(place.join("index.json"), index).unwrap();
    fs::write(place.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

#[test]
#[ignore = "needs apt-get and dpkg-deb; .ci/run runs it"]
fn apt_downloads_a_package() {
    let files = tempfile::tempdir().unwrap();
    let (_server, address) = upstream("files", files.path());
    let tools = Tools::before(address, "\"/debian\"", BASIC);
    let source = tools.place("gated");
    fs::create_dir_all(source.join("DEBIAN")).unwrap();
    let control = "Package: gated\nVersion: 1.0\nArchitecture: all\nMaintainer: a <a@example.org>\nDescription: gated\n";
    fs::write(source.join("DEBIAN/control"), control).unwrap();
    fs::create_dir_all(files.path().join("debian")).unwrap();
    let package = files.path().join("debian/gated_1.0_all.deb");
    run(Command::new("dpkg-deb").args(["-b", "--root-owner-group"]).arg(&source).arg(&package));
    let sum = run(Command::new("sha256sum").arg(&package));
    let size = fs::metadata(&package).unwrap().len();
    let entry = format!("{control}Filename: ./gated_1.0_all.deb\nSize: {size}\nSHA256: {}\n", &sum[..64]);
    fs::write(files.path().join("debian/Packages"), entry).unwrap();
    let at = tools.at();
    let apt = |row: &str, token: &str, arguments: &[&str]| {
        let place = tools.place(&format!("apt-{row}"));
        for name in ["state/lists/partial", "cache/archives/partial", "etc"] {
            fs::create_dir_all(place.join(name)).unwrap();
        }
        fs::write(place.join("etc/sources.list"), format!("deb [trusted=yes] http://{at}/debian ./\n"))
            .unwrap();
        let login = format!("machine http://{at}/debian login alice password {token}\n");
        fs::write(place.join("etc/auth.conf"), login).unwrap();
        fs::write(place.join("status"), "").unwrap();
        let mut command = Command::new("apt-get");
        for (name, value) in [
            ("Dir::State", place.join("state")),
            ("Dir::State::status", place.join("status")),
            ("Dir::Cache", place.join("cache")),
            ("Dir::Etc", place.join("etc")),
            ("Dir::Etc::netrc", place.join("etc/auth.conf")),
            ("APT::Sandbox::User", "root".into()),
            ("APT::Update::Error-Mode", "any".into()),
        ] {
            command.arg("-o").arg(format!("{name}={}", value.display()));
        }
        command.args(arguments).current_dir(place);
        command
    };
    run(&mut apt("good", &tools.read, &["update"]));
    run(&mut apt("good", &tools.read, &["download", "gated"]));
    assert!(tools.place("apt-good/gated_1.0_all.deb").exists());
    for (row, token, _) in &tools.bad {
        // apt shows the status alone.
        let status = if *row == "wrong" { "403" } else { "401" };
        prints(row, "apt", &fails(&mut apt(row, token, &["update"])), status);
    }
}

#[test]
#[ignore = "needs restic and rclone of apt; .ci/run runs it"]
fn restic_and_rclone_keep_files() {
    let (dir, address) = (tempfile::tempdir().unwrap(), stage::vacant());
    let serve = |kind: &str, address: SocketAddr, more: &[&str]| {
        let place = dir.path().join(kind);
        fs::create_dir_all(&place).unwrap();
        let mut command = Command::new("rclone");
        command.args(["serve", kind, "--addr", &address.to_string()]).args(more).arg(place);
        stage::listening(command.stderr(Stdio::null()), address)
    };
    let _server = serve("restic", address, &["--baseurl", "/backup"]);
    let tools = Tools::before(address, "\"/backup\"", BASIC);
    fs::write(tools.place("file"), "kept").unwrap();
    let restic = |token: &str, arguments: &[&str]| {
        let mut command = Command::new("restic");
        command.arg("-r").arg(format!("rest:http://alice:{token}@{}/backup/", tools.at())).args(arguments);
        command.env("RESTIC_PASSWORD", "secret").env("HOME", tools.dir.path());
        command
    };
    run(&mut restic(&tools.full, &["init", "-q"]));
    run(restic(&tools.full, &["backup", "-q"]).arg(tools.place("file")));
    prints("good", "restic", &run(&mut restic(&tools.full, &["ls", "latest"])), "file");
    for (row, token, _) in &tools.bad {
        let status = if *row == "wrong" { "403" } else { "401" };
        prints(row, "restic", &fails(&mut restic(token, &["snapshots", "--no-lock"])), status);
    }

    let address = stage::vacant();
    let _server = serve("webdav", address, &["--baseurl", "/dav"]);
    let reads = "read_methods = [\"GET\", \"HEAD\", \"OPTIONS\", \"PROPFIND\"]";
    let tools = Tools::before(address, "\"/dav\"", &format!("{BASIC}\n{reads}"));
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
    prints("read", "rclone", &run(&mut rclone(&tools.read, &["ls", "dav:"])), "4 file");
    fs::write(tools.place("file"), "changed").unwrap();
    let said = fails(&mut rclone(&tools.read, &["copy", &file, "dav:"]));
    prints("read-only", "rclone", &said, "The access token is read-only for this service");
    for (row, token, expected) in &tools.bad {
        prints(row, "rclone", &fails(&mut rclone(token, &["ls", "dav:"])), expected);
    }
}

#[test]
#[ignore = "needs nginx; .ci/run runs it"]
fn a_shared_cache_in_front_gives_nobody_another_callers_answer() {
    let upstream = support::upstream::Upstream::start(|seen, socket| {
        use std::io::Write as _;
        let user = seen.head.lines().find_map(|line| line.strip_prefix("x-permgate-token-id: "));
        let body = user.unwrap_or("nobody");
        let caching = "Cache-Control: public, max-age=60\r\nX-Accel-Expires: 60\r\nExpires: Fri, 01 Jan 2100 00:00:00 GMT";
        let length = body.len();
        socket.write_all(
            format!("HTTP/1.1 200 OK\r\n{caching}\r\nContent-Length: {length}\r\n\r\n{body}").as_bytes(),
        )
    });
    let tools =
        Tools::before(upstream.address, "\"/api\"", "credentials = [\"bearer\", \"header:X-Api-Key\"]");
    let (address, dir) = (stage::vacant(), tools.dir.path().display());
    let config = format!(
        "daemon off; master_process off; pid {dir}/pid; error_log stderr; events {{}}\nhttp {{\n access_log off;\n\
         proxy_cache_path {dir}/cache keys_zone=all:1m;\n client_body_temp_path {dir}/a; proxy_temp_path {dir}/b;\n\
         fastcgi_temp_path {dir}/c; uwsgi_temp_path {dir}/d; scgi_temp_path {dir}/e;\n\
         server {{ listen {address}; location / {{ proxy_pass http://{}; proxy_cache all; }} }}\n}}\n",
        tools.at()
    );
    fs::write(tools.place("nginx.conf"), config).unwrap();
    let mut nginx = Command::new("nginx");
    nginx
        .args(["-p", "/tmp", "-c"])
        .arg(tools.place("nginx.conf"))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let _nginx = stage::listening(&mut nginx, address);
    let get = |token: &str| {
        let field = format!("X-Api-Key: {token}");
        run(Command::new("curl").args(["-sS", "-H", &field, &format!("http://{address}/api/x")]))
    };
    for token in [&tools.full, &tools.read, &tools.full] {
        assert_eq!(get(token), token[4..16]);
    }
    assert!(get("nonsense").contains("The access token is malformed"));
}
