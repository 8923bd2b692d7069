//! A file with a token and, on a second line, the admin listener that created it. The token is sent to no
//! other listener unless the user names one.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{self, Path, PathBuf},
};

use zeroize::Zeroizing;

use super::{
    failure::{Failure, unreadable},
    target::Target,
};

/// The maximum size of the file, in bytes.
const MAX_LENGTH: u64 = 4096;

/// Precedes the address on the second line.
const TARGET_PREFIX: &str = "for ";

/// The token, and the listener on the second line.
pub(super) fn read(path: &Path) -> Result<(Zeroizing<String>, Option<Target>), Failure> {
    let read = || match fs::metadata(path)?.len() {
        0..=MAX_LENGTH => fs::read_to_string(path).map(Zeroizing::new),
        _ => Err(io::Error::other("it is too long to be a token")),
    };
    let text = read().map_err(|error| unreadable(path, &error))?;
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let Some(token) = lines.next() else {
        return Err(Failure::usage(format!("{} is empty", path.display())));
    };
    let target = match (lines.next(), lines.next()) {
        (None, _) => None,
        (Some(line), None) if line.starts_with(TARGET_PREFIX) => {
            Some(Target::parse(&line[TARGET_PREFIX.len()..])?)
        }
        _ => {
            let message = format!("{} must have only a token on its first line", path.display());
            return Err(Failure::usage(format!("{message}, and `{TARGET_PREFIX}ADDRESS` in its second one")));
        }
    };
    Ok((Zeroizing::new(token.to_owned()), target))
}

/// A file for a token that is yet to be created: a file that cannot be written must not cost a token.
pub(super) struct TokenFile {
    path: PathBuf,
    /// Open since it was created: what lies at the path by then may be somebody else's.
    file: File,
    kept: bool,
}

impl TokenFile {
    /// Creates the file, readable by its owner only; fails if it exists.
    pub(super) fn create(path: &Path) -> Result<Self, Failure> {
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let file =
            opened.map_err(|error| Failure::failed(format!("cannot create {}: {error}", path.display())))?;
        Ok(Self { path: path.to_owned(), file, kept: false })
    }

    /// `target`: the listener that created the token; `None` for `--offline`.
    pub(super) fn write(mut self, token: &str, target: Option<&Target>) -> io::Result<()> {
        let mut text = Zeroizing::new(format!("{token}\n"));
        if let Some(target) = target {
            let target = match target {
                Target::Unix(path) => Target::Unix(path::absolute(path)?),
                target @ Target::Tcp(_) => target.clone(),
            };
            text.push_str(&format!("{TARGET_PREFIX}{target}\n"));
        }
        self.file.write_all(text.as_bytes())?;
        self.file.sync_all()?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for TokenFile {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_a_token_and_at_most_its_address() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        let check = |text: &str, expected: Result<(&str, Option<&str>), ()>| {
            fs::write(&file, text).unwrap();
            let found = read(&file).map_err(|_| ());
            let found =
                found.map(|(token, target)| (token.to_string(), target.map(|target| target.to_string())));
            let found = found.as_ref().map(|(token, target)| (token.as_str(), target.as_deref()));
            assert_eq!(found.ok(), expected.ok(), "{text:?}");
        };
        check("abc", Ok(("abc", None)));
        check(" abc \n\n", Ok(("abc", None)));
        check("abc\nfor http://gate:8081\n", Ok(("abc", Some("http://gate:8081"))));
        check("abc\nfor unix:/run/permgate.sock", Ok(("abc", Some("unix:/run/permgate.sock"))));
        check("", Err(()));
        check("abc\ndef", Err(()));
        check("abc\nfor nobody", Err(()));
        check("abc\nfor unix:/a\nfor unix:/b", Err(()));
        check(&"x".repeat(4097), Err(()));
    }

    #[test]
    fn a_token_goes_into_the_file_that_was_created() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("token"), dir.path().join("other"));
        let file = TokenFile::create(&path).ok().unwrap();
        fs::write(&other, "").unwrap();
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        file.write("secret", None).unwrap();
        assert_eq!(fs::read_to_string(&other).unwrap(), "");
        let file = TokenFile::create(&dir.path().join("another")).ok().unwrap();
        file.write("secret", None).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("another")).unwrap(), "secret\n");
    }
}
