//! Damage that occurs while a gateway serves: `store verify` finds it, a backup still has
//! everything, and a restore repairs it.

use std::{fs, os::unix::fs::FileExt};

use crate::installation::Installation;

#[test]
fn journal_damage_is_found_online_and_offline() {
    let installation = Installation::new();
    let process = installation.run();
    process.user("alice");
    let (_, good) = process.token("alice", "good");
    let (id, revoked) = process.token("alice", "revoked");
    process.must("DELETE", &format!("/v1/tokens/{id}"), None);
    let (code, words) = installation.run_command("store verify");
    assert_eq!(code, Some(0), "{words}");

    let generation = installation.path().join("data/gen-1");
    let mut files = fs::read_dir(&generation).unwrap().map(|file| file.unwrap().path());
    let journal = files.find(|file| file.display().to_string().contains("/journal-")).unwrap();
    let file = fs::File::options().read(true).write(true).open(&journal).unwrap();
    // A byte of the second batch.
    let mut byte = [0];
    file.read_exact_at(&mut byte, 4 * 4096 + 200).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 4 * 4096 + 200).unwrap();
    let named = journal.display().to_string();
    for says in ["-o json store verify", "store verify"] {
        let (code, words) = installation.run_command(says);
        assert_eq!(code, Some(1), "{words}");
        for word in ["position 2", "store backup", "damaged in 1 place"] {
            assert!(words.contains(word), "{word} is missing in {words}");
        }
        assert!(words.contains(&named) || says == "store verify", "{words}");
    }
    assert_eq!((process.status(&good), process.status(&revoked)), (200, 401), "it serves on");
    installation.must("store backup whole.backup");
    process.stop();

    let (code, words) = installation.run_command("--offline -o json store verify");
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains(&named) && words.contains("\"sound\": false"), "{words}");
    let (code, words) = installation.start_failing();
    assert!(code == Some(1) && words.contains("permgate store restore"), "{words}");
    installation.must("store restore --accept-lost-revocations whole.backup");
    installation.must("--offline store verify");
    let process = installation.run();
    assert_eq!((process.status(&good), process.status(&revoked)), (200, 401));
    process.stop();
}
