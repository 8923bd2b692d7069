//! `permgate role ...`.

use clap::Subcommand;
use serde_json::{Value, json};

use super::{
    Global,
    client::{Client, escape, tell_cut},
    complete,
    confirm::confirm,
    failure::{Failure, say},
    hint::{self, Named},
    output::{Columns, ListView},
    token::present,
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
    /// Show one role
    Show {
        /// Key of the role, as `permgate role list` shows it
        #[arg(add = complete::roles())]
        key: String,
    },
    /// Rename a role, or change what it permits; a permission that is taken away ends at once for all who hold it
    Edit {
        /// Key of the role, as `permgate role list` shows it
        #[arg(add = complete::roles())]
        key: String,
        /// Another name for people
        #[arg(long)]
        name: Option<String>,
        /// A permission of the whole new list; may be repeated
        #[arg(long, value_name = "PERMISSION", value_parser = permission)]
        permission: Vec<String>,
    },
    /// Delete a role, and take it from all who hold it
    #[command(visible_alias = "rm")]
    Delete {
        /// Key of the role, as `permgate role list` shows it
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
        let hinted = |failure: Failure, key: &str| hint::missing(&client, failure, &[Named::Role(key)]);
        match self {
            Self::Create { key, name, permission } => {
                let name = name.as_ref().unwrap_or(&key);
                let body = json!({ "key": key, "name": name, "permissions": permission });
                let record = client.post("/v1/roles", &body)?;
                global.output.changed(&record, COLUMNS, &format!("created {key}"))
            }
            Self::List => global.output.list(client.list("/v1/roles?limit=1000", None)?, VIEW),
            Self::Show { key } => {
                let record = client.get(&path(&key)).map_err(|failure| hinted(failure, &key))?;
                global.output.record(&record, COLUMNS)
            }
            Self::Edit { key, name, permission } => {
                let permissions = if permission.is_empty() { None } else { Some(json!(permission)) };
                let body = present([("name", name.map(Value::String)), ("permissions", permissions)]);
                if body.is_empty() {
                    return Err(Failure::usage("nothing to change: give --name or --permission"));
                }
                let record = client
                    .patch(&path(&key), &Value::Object(body))
                    .map_err(|failure| hinted(failure, &key))?;
                global.output.changed(&record, COLUMNS, &format!("changed {key}"))?;
                tell_cut(&record);
                Ok(())
            }
            Self::Delete { key, yes } => {
                confirm(&format!("Delete the role {key}, and take it from all who hold it?"), yes)?;
                let answer = client.delete(&path(&key)).map_err(|failure| hinted(failure, &key))?;
                say(&format!("deleted {key}"));
                tell_cut(&answer);
                Ok(())
            }
        }
    }
}

fn path(key: &str) -> String {
    format!("/v1/roles/{}", escape(key))
}

fn permission(word: &str) -> Result<String, String> {
    Permission::from_word(word).map(|permission| permission.word().to_owned()).ok_or_else(|| {
        let words: Vec<_> = Permission::ALL.iter().map(|permission| permission.word()).collect();
        format!("one of {}", words.join(", "))
    })
}
