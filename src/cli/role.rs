//! `permgate role ...`.

use clap::Subcommand;
use serde_json::json;

use super::{
    Global,
    client::{Client, escape, tell_cut},
    failure::{Failure, say},
    output::Columns,
};
use crate::authz::subject::Permission;

#[derive(Debug, Subcommand)]
pub(super) enum Role {
    /// Make a role
    Create {
        key: String,
        /// The key unless given
        #[arg(long)]
        name: Option<String>,
        /// Such as read-service; several times for several
        #[arg(long, value_name = "PERMISSION", value_parser = permission)]
        permission: Vec<String>,
    },
    /// List roles
    List,
    /// Delete a role and its grants
    Delete { key: String },
}

const COLUMNS: Columns =
    &[("KEY", "key"), ("NAME", "name"), ("PERMISSIONS", "permissions"), ("BUILT IN", "built_in")];

impl Role {
    pub(super) fn run(self, global: &Global) -> Result<(), Failure> {
        let client = Client::new(global)?;
        match self {
            Self::Create { key, name, permission } => {
                let name = name.as_ref().unwrap_or(&key);
                let body = json!({ "key": key, "name": name, "permissions": permission });
                global.output.record(&client.post("/v1/roles", &body)?, COLUMNS)
            }
            Self::List => global.output.list(&client.list("/v1/roles?limit=1000", None)?, COLUMNS),
            Self::Delete { key } => {
                let answer = client.delete(&format!("/v1/roles/{}", escape(&key)))?;
                say(&format!("deleted {key}"));
                tell_cut(&answer);
                Ok(())
            }
        }
    }
}

fn permission(word: &str) -> Result<String, String> {
    match Permission::from_word(word) {
        Some(permission) => Ok(permission.word().to_owned()),
        None => Err(format!("one of {}", Permission::ALL.map(Permission::word).join(", "))),
    }
}
