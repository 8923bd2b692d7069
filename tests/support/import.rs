//! Accounts that are imported into a store before a gateway serves it.

use std::{fmt::Write, path::Path, process::Command};

use super::stage::run;

/// The text of an imported token.
pub fn bearer(number: usize) -> String {
    format!("bench_{}", &blake3::hash(&number.to_le_bytes()).to_hex()[..40])
}

/// The lines of an import.
#[derive(Default)]
pub struct Accounts(String);

impl Accounts {
    pub fn user(&mut self, login: &str) {
        writeln!(self.0, r#"{{"user": "{login}", "kind": "service"}}"#).unwrap();
    }

    pub fn group(&mut self, name: &str, members: &[String]) {
        writeln!(self.0, r#"{{"group": "{name}", "members": {members:?}}}"#).unwrap();
    }

    /// Adds the token whose text is [`bearer`] of its number.
    pub fn token(&mut self, number: usize, owner: &str, scope: &[String]) {
        let digest = blake3::hash(bearer(number).as_bytes()).to_hex();
        writeln!(
            self.0,
            r#"{{"digest": "{digest}", "owner": "{owner}", "name": "token {number}", "scope": {scope:?}}}"#
        )
        .unwrap();
    }

    /// Imports the lines into the store of this configuration, which must be offline.
    pub fn import(&self, config: &Path) {
        let lines = config.with_extension("ndjson");
        std::fs::write(&lines, &self.0).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_permgate"));
        run(command.args(["token", "import", "--offline", "--make-owners", "-c"]).args([config, &lines]));
    }
}
