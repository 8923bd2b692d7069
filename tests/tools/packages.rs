//! Package managers: npm, pip and twine, cargo, apt.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use crate::{
    support::stage::{self, run},
    tools::{BASIC, Tools, assert_prints, fails, upstream},
};

#[test]
#[ignore = "installs verdaccio from npm; .ci/run runs it"]
fn npm_publishes_and_installs() {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("verdaccio");
    fs::create_dir_all(&place).unwrap();
    if !place.join("node_modules/.bin/verdaccio").exists() {
        // verdaccio requires a tag of node-fetch that not every mirror has.
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
    // npm sends a bearer token by itself. It sends many requests at once, and the queue
    // avoids refusals by the limit.
    let tools = Tools::in_front_of(address, "\"/\"", "limits = [{ per = \"token\", concurrent = 1 }]");
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
    assert_prints("read-only", "npm", &said, "The access token is read-only for this service");
    for (row, token, expected) in &tools.bad {
        assert_prints(row, "npm", &fails(&mut npm(token, row, &["view", "@acme/gated"])), expected);
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
    let tools = Tools::in_front_of(address, "\"/\"", BASIC);
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
        command.args(["upload", "--non-interactive", "--disable-progress-bar", "-u", "__token__"]);
        command.args(["-p", token, "--repository-url", &url]).arg(&archive).env("HOME", tools.dir.path());
        command
    };
    let pip = |token: &str, target: &str| {
        let mut command = Command::new(python.with_file_name("pip"));
        let index = format!("http://__token__:{token}@{}/simple/", tools.at());
        let options =
            ["install", "--no-input", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"];
        command.args(options).args(["--no-cache-dir", "--trusted-host", "127.0.0.1", "-i", &index, "-vv"]);
        command.arg("--target").arg(tools.place(target)).arg("gated").env("HOME", tools.dir.path());
        command
    };
    run(&mut twine(&tools.full));
    run(&mut pip(&tools.read, "good"));
    assert!(tools.place("good/gated.py").exists());
    for (row, token, expected) in &tools.bad {
        assert_prints(row, "twine", &fails(&mut twine(token)), expected);
        assert_prints(row, "pip", &fails(&mut pip(token, row)), expected);
    }
}

#[test]
#[ignore = "needs cargo; .ci/run runs it"]
fn cargo_fetches_from_a_sparse_registry_and_publishes() {
    let files = tempfile::tempdir().unwrap();
    let (_server, address) = upstream("files", files.path());
    let tools = Tools::in_front_of(
        address,
        "\"/index\", \"/crates\", \"/api\"",
        "credentials = [\"bearer\", \"raw\"]",
    );
    // The only crate of the registry.
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
    fs::create_dir_all(tools.place("next/src")).unwrap();
    fs::write(tools.place("next/src/lib.rs"), "").unwrap();
    let manifest = "[package]\nname = \"next\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\
                    description = \"more\"\nlicense = \"MIT\"\n[workspace]\n";
    fs::write(tools.place("next/Cargo.toml"), manifest).unwrap();
    let cargo = |token: &str, home: &str, arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO"));
        command.args(arguments).current_dir(&project).env("CARGO_HOME", tools.place(home));
        command.env("CARGO_REGISTRIES_GATE_INDEX", format!("sparse+http://{at}/index/"));
        command.env("CARGO_REGISTRIES_GATE_TOKEN", token).env("CARGO_NET_RETRY", "0");
        command.env("CARGO_REGISTRY_GLOBAL_CREDENTIAL_PROVIDERS", "cargo:token");
        command
    };
    // In clear text cargo requests an upgrade to HTTP/2, which a read-only token does not permit.
    run(&mut cargo(&tools.full, "good", &["fetch"]));
    let found = run(&mut cargo(&tools.full, "good", &["search", "--registry", "gate", "gated"]));
    assert_prints("good", "cargo", &found, "behind the gateway");
    run(&mut cargo(&tools.full, "good", &["yank", "--registry", "gate", "gated@1.0.0"]));
    let publish = [
        "publish",
        "--registry",
        "gate",
        "--no-verify",
        "--allow-dirty",
        "--manifest-path",
        "../next/Cargo.toml",
    ];
    run(&mut cargo(&tools.full, "good", &publish));
    assert!(files.path().join("crates/next-0.1.0.crate").exists());
    for (row, token, expected) in &tools.bad {
        assert_prints(row, "cargo", &fails(&mut cargo(token, row, &publish)), expected);
        let _ = fs::remove_file(project.join("Cargo.lock"));
        assert_prints(row, "cargo", &fails(&mut cargo(token, row, &["fetch"])), expected);
    }
}

#[test]
#[ignore = "needs apt-get and dpkg-deb; .ci/run runs it"]
fn apt_downloads_a_package() {
    let files = tempfile::tempdir().unwrap();
    let (_server, address) = upstream("files", files.path());
    let tools = Tools::in_front_of(address, "\"/debian\"", BASIC);
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
    for (row, token, expected) in &tools.bad {
        assert_prints(row, "apt", &fails(&mut apt(row, token, &["update"])), expected);
    }
}
