//! What is done, and said, after something has failed.

use super::*;

/// Runs a shell's line with `permgate` in its path; returns its exit code and what it said.
fn shell(at: &Path, line: &str) -> (i32, String) {
    let binary = Path::new(env!("CARGO_BIN_EXE_permgate")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("bash");
    for variable in ["PERMGATE_CONFIG", "PERMGATE_ADMIN", "PERMGATE_TOKEN", "PERMGATE_LOG"] {
        command.env_remove(variable);
    }
    let output = command.args(["-c", line]).current_dir(at).env("PATH", path).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn a_pipe_that_is_named_is_scanned() {
    const TOKEN: &str = "pgt_A1iceYt00001_fAP2l3cGjaBAHokSsW17RyEusf3hEGifhgPiofGdOYe1Q6rwW";
    let place = tempfile::tempdir().unwrap();
    let at = place.path();
    fs::write(at.join("file"), TOKEN).unwrap();
    for line in ["cat file | permgate scan /dev/stdin", "permgate scan <(cat file)", "permgate scan - <file"]
    {
        let (code, said) = shell(at, line);
        assert!(code == 1 && said.contains("A1iceYt00001"), "{line}: {code} {said}");
    }
    fs::create_dir(at.join("src")).unwrap();
    let (code, said) =
        shell(at, "mkfifo src/pipe && permgate scan src </dev/null && permgate scan /dev/null");
    assert_eq!(code, 0, "a pipe in a directory would not end: {said}");
    let _socket = std::os::unix::net::UnixListener::bind(at.join("src/socket")).unwrap();
    check(at, "scan src", 0);
    let (_, words) = check(at, "scan src/socket", 2);
    assert!(words.contains("cannot read src/socket"), "{words}");
}
