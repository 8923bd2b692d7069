//! A container registry, and the sign-in of its clients.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use crate::{
    support::stage::{self, run},
    tools::{Tools, assert_prints, fails},
};

#[test]
#[ignore = "needs skopeo, docker-registry and docker.io of apt; .ci/run runs it"]
fn docker_and_skopeo_sign_in_push_and_pull() {
    let (dir, address) = (tempfile::tempdir().unwrap(), stage::vacant());
    let config = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{address}'}}\n",
        dir.path().join("images").display()
    );
    fs::write(dir.path().join("config.yml"), config).unwrap();
    let mut registry = Command::new("docker-registry");
    registry.arg("serve").arg(dir.path().join("config.yml")).stdout(Stdio::null()).stderr(Stdio::null());
    let _server = stage::listening(&mut registry, address);
    let tools = Tools::in_front_of(address, "\"/v2\"", "registry = true");
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
    assert_prints("read", "skopeo", &run(&mut skopeo("read", &inspect)), "sha256:");
    assert_prints("read-only", "skopeo", &fails(&mut skopeo("read", &push)), "The access token is read-only");
    // No daemon runs here, so docker signs in by itself.
    let docker = |row: &str, token: &str| {
        let mut command = Command::new("docker");
        command.arg("--config").arg(tools.place(&format!("docker-{row}")));
        command.args(["login", "-u", "alice", "-p", token, &at.to_string()]);
        command.env("DOCKER_HOST", format!("unix://{}", tools.place("nobody").display()));
        command
    };
    assert_prints("full", "docker", &run(&mut docker("full", &tools.full)), "Login Succeeded");
    for (row, token, expected) in &tools.bad {
        fails(&mut login(row, token));
        // docker prints its own words for a 403.
        let shown = if *row == "wrong" { "failed with status: 403" } else { expected };
        assert_prints(row, "docker", &fails(&mut docker(row, token)), shown);
        let creds = format!("alice:{token}");
        assert_prints(row, "skopeo", &fails(skopeo(row, &inspect).args(["--creds", &creds])), expected);
    }
    let said = fails(&mut skopeo("nobody", &inspect));
    assert_prints("nothing", "skopeo", &said, "No access token was sent");
}

/// The smallest image in OCI layout.
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
