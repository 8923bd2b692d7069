//! `permgate role ...`.

use clap::Subcommand;
use serde_json::json;

use super::{
    Global,
    client::{Client, escape, tell_cut},
    complete,
    confirm::confirm,
    failure::{Failure, say},
    hint::{self, Named},
    output::{Columns, ListView},
};
use crate::authz::subject::Permission;

#[derive(Debug, Subcommand)]
pub(super) enum Role {
    /// Create a role
    Create {
        /// What it is called in commands, such as auditor
        key: String,
        /// What it is called for people; the key unless given
        #[arg(long)]
        name: Option<String>,
        /// A permission, such as read-service; may be repeated
        #[arg(long, value_name = "PERMISSION", value_parser = permission)]
        permission: Vec<String>,
    },
    /// List roles
    #[command(visible_alias = "ls")]
    List,
    /// Delete a role, and take it from all who hold it
    #[command(visible_alias = "rm")]
    Delete {
        #[arg(add = complete::roles())]
        key: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

const COLUMNS: Columns =
    &[("KEY", "key"), ("NAME", "name"), ("PERMISSIONS", "permissions"), ("BUILT IN", "built_in")];

const VIEW: ListView = ListView { nouns: "roles", sort: &["key"], columns: COLUMNS };

impl Role {
    pub(super) fn run(self, global: &Global) -> Result<(), Failure> {
        let client = Client::new(global)?;
        match self {
            Self::Create { key, name, permission } => {
                let name = name.as_ref().unwrap_or(&key);
                let body = json!({ "key": key, "name": name, "permissions": permission });
                let record = client.post("/v1/roles", &body)?;
                global.output.changed(&record, COLUMNS, &format!("created {key}"))
            }
            Self::List => global.output.list(client.list("/v1/roles?limit=1000", None)?, VIEW),
            Self::Delete { key, yes } => {
                confirm(&format!("Delete the role {key}, and take it from all who hold it?"), yes)?;
                let answer = client
                    .delete(&format!("/v1/roles/{}", escape(&key)))
                    .map_err(|failure| hint::missing(&client, failure, &[Named::Role(&key)]))?;
                say(&format!("deleted {key}"));
                tell_cut(&answer);
                Ok(())
            }
        }
    }
}

fn permission(word: &str) -> Result<String, String> {
    Permission::from_word(word).map(|permission| permission.word().to_owned()).ok_or_else(|| {
        let words: Vec<_> = Permission::ALL.iter().map(|permission| permission.word()).collect();
        format!("one of {}", words.join(", "))
    })
}
