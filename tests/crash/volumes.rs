//! Where a store may be: on a mount point, behind a symlink, in a directory whose parent is not writable, or
//! on a volume of root that is writable by group.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::Path,
    process::Command,
};

use crate::{faults::SmallDisk, installation::Installation};

/// Takes a backup, revokes a token, and restores. The restored store must be at the path, with the token
/// still revoked. `starter` is the program that runs the commands.
fn restores(installation: &Installation, starter: &[&str]) {
    let process = installation.run_by(starter);
    process.user("ann");
    let (_, kept) = process.token("ann", "kept");
    let (id, revoked) = process.token("ann", "revoked");
    let must = |line: &str| {
        let output = installation.command_by(starter, line).output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let backup = installation.path().join("out/old.backup").display().to_string();
    must(&format!("store backup {backup}"));
    process.must("DELETE", &format!("/v1/tokens/{id}"), None);
    let (_, later) = process.token("ann", "later");
    process.stop();
    must(&format!("store restore {backup}"));
    must("--offline store verify");
    let process = installation.run_by(starter);
    assert_eq!((process.status(&kept), process.status(&revoked), process.status(&later)), (200, 401, 401));
    process.stop();
}

fn with_out(store: &str) -> Installation {
    let installation = Installation::with(store, "64k");
    fs::create_dir(installation.path().join("out")).unwrap();
    installation
}

#[test]
fn restore_onto_a_mount_point_works_in_place() {
    let installation = with_out("volume");
    let volume = installation.path().join("volume");
    fs::create_dir(&volume).unwrap();
    let Some(_mounted) = SmallDisk::mount(&volume, "64m") else { return };
    // A new ext4 file system has one.
    fs::create_dir(volume.join("lost+found")).unwrap();
    restores(&installation, &[]);
    assert!(volume.join("CURRENT").exists() && volume.join("lost+found").exists());
}

#[test]
fn restore_through_a_symlink_keeps_the_link() {
    for there in [true, false] {
        let installation = with_out("link");
        let target = installation.path().join("elsewhere/store");
        fs::create_dir_all(if there { &target } else { target.parent().unwrap() }).unwrap();
        if there {
            symlink(&target, installation.path().join("link")).unwrap();
        } else {
            // The parent is also behind a link.
            symlink(target.parent().unwrap(), installation.path().join("parent")).unwrap();
            symlink("parent/store", installation.path().join("link")).unwrap();
            fs::create_dir(&target).unwrap();
        }
        restores(&installation, &[]);
        assert!(fs::symlink_metadata(installation.path().join("link")).unwrap().is_symlink());
        assert!(target.join("CURRENT").exists());
    }
}

/// A program that runs commands without privileges; `None` if the test may not switch users.
fn nobody(group: u32) -> Option<Vec<String>> {
    if !rustix::process::geteuid().is_root() || Command::new("setpriv").arg("--version").output().is_err() {
        println!("skipped: only root can become somebody else, by setpriv");
        return None;
    }
    let words =
        ["setpriv", "--reuid=65534", "--regid=65534", &format!("--groups={group}"), "--"].map(str::to_owned);
    Some(words.to_vec())
}

fn owned(path: &Path, user: u32, group: u32, mode: u32) {
    chown(path, Some(user), Some(group)).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn restore_needs_no_permission_on_the_parent_directory() {
    const NOBODY: u32 = 65534;
    let Some(starter) = nobody(NOBODY) else { return };
    let starter: Vec<&str> = starter.iter().map(String::as_str).collect();
    let installation = Installation::with("parent/store", "64k");
    let parent = installation.path().join("parent");
    fs::create_dir_all(parent.join("store")).unwrap();
    fs::create_dir(installation.path().join("out")).unwrap();
    owned(&installation.path().join("out"), NOBODY, NOBODY, 0o700);
    owned(&parent.join("store"), NOBODY, NOBODY, 0o700);
    owned(&parent, 0, 0, 0o555);
    owned(installation.path(), NOBODY, NOBODY, 0o755);
    restores(&installation, &starter);
}

/// As Kubernetes mounts a volume with `fsGroup`: root:GROUP, mode 2775, and a process in the group.
#[test]
fn group_owned_volume_is_accepted_with_a_warning() {
    const GROUP: u32 = 3000;
    const NOBODY: u32 = 65534;
    let Some(starter) = nobody(GROUP) else { return };
    let starter: Vec<&str> = starter.iter().map(String::as_str).collect();
    let installation = with_out("volume");
    let volume = installation.path().join("volume");
    fs::create_dir(&volume).unwrap();
    fs::create_dir(volume.join("lost+found")).unwrap();
    owned(&volume.join("lost+found"), 0, 0, 0o700);
    owned(&volume, 0, GROUP, 0o2775);
    owned(&installation.path().join("out"), NOBODY, NOBODY, 0o700);
    owned(installation.path(), NOBODY, NOBODY, 0o755);
    let process = installation.run_by(&starter);
    process.wait_for_output("cannot be made private");
    process.stop();
    restores(&installation, &starter);

    // Without the group, the system's error is reported.
    fs::remove_dir_all(&volume).unwrap();
    fs::create_dir(&volume).unwrap();
    owned(&volume, 0, GROUP, 0o2775);
    let alone = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"];
    let output = installation.command_by(&alone, "run").output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(words.contains("Permission denied") && words.contains("volume"), "{words}");
}
