//! A disk that fills up under changes: removals take effect, serving continues, and the
//! next start opens the store by releasing the ballast.

use std::{
    fs::File,
    io::{ErrorKind, Write},
};

use crate::{
    faults::SmallDisk,
    installation::{Installation, Process},
};

#[test]
fn full_disk_loses_no_acknowledged_change() {
    let installation = Installation::with("disk/data", "8m");
    let disk = installation.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let Some(_mounted) = SmallDisk::mount(&disk, "40m") else { return };
    let process = installation.run();
    process.user("alice");
    let mut acknowledged = Vec::new();
    for number in 0..20 {
        acknowledged.push(process.token("alice", &format!("token {number}")));
    }
    let (revoked_id, revoked) = acknowledged.pop().unwrap();

    fill(&disk);
    let refused = change_until_refused(&process, &mut acknowledged);
    assert_eq!(refused, (503, "store_unavailable".to_owned()));
    let answer = process.operator("DELETE", &format!("/v1/tokens/{revoked_id}"), None);
    assert_eq!(answer.outcome(), (503, "not_durable".to_owned()), "{answer:?} {}", process.output());
    assert_eq!(process.status(&revoked), 401, "in force at once");
    for (id, text) in &acknowledged {
        assert_eq!(process.status(text), 200, "{id}: serving goes on");
    }
    process.stop();

    let process = installation.run();
    assert!(process.output().contains("deleted the ballast file"), "{}", process.output());
    for (id, text) in &acknowledged {
        assert_eq!(process.status(text), 200, "{id} was acknowledged");
    }
    installation.must("audit verify");
    process.must("DELETE", &format!("/v1/tokens/{revoked_id}"), None);
    assert_eq!(process.status(&revoked), 401);
    process.stop();

    fill(&disk);
    let (code, words) = installation.start_failing();
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("is full") && words.contains("free some space and start again"), "{words}");
    std::fs::remove_file(disk.join("filling")).unwrap();
    let process = installation.run();
    assert_eq!(process.status(&revoked), 401);
    assert_eq!(process.status(&acknowledged[0].1), 200);
    process.stop();
}

/// Fills the disk to the last byte.
fn fill(disk: &std::path::Path) {
    let mut file = File::options().append(true).create(true).open(disk.join("filling")).unwrap();
    for size in [1 << 20, 4096, 1] {
        loop {
            match file.write(&vec![b'x'; size]) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Creates tokens until one is refused, because the store's files may still have room.
/// Acknowledged tokens are appended to the list.
fn change_until_refused(process: &Process, acknowledged: &mut Vec<(String, String)>) -> (u16, String) {
    for number in 0..2000 {
        let made = process.sockets().create("alice", &format!("late {number}")).unwrap();
        if made.status != 201 {
            return made.outcome();
        }
        acknowledged.push(made.token());
    }
    panic!("a full disk takes everything");
}
