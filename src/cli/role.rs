//! `permgate role ...`: named sets of permissions.

use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    Global,
    client::{Client, path_of, without_nulls},
    complete,
    confirm::confirm,
    failure::Failure,
    output::ListView,
};
use crate::authz::subject::Permission;

#[derive(Debug, Subcommand)]
pub(super) enum Role {
    /// Create a role
    Create {
        /// Key of the role in commands, such as auditor
        key: String,
        /// Name of the role for people; the key if not given
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
    Show(RoleSelector),
    /// Rename a role or replace its permissions; a removed permission ends at once for all who hold the role
    Edit {
        #[command(flatten)]
        role: RoleSelector,
        /// New name for people
        #[arg(long)]
        name: Option<String>,
        /// A permission of the new list, which replaces the old one; may be repeated
        #[arg(long, value_name = "PERMISSION", value_parser = permission)]
        permission: Vec<String>,
    },
    /// Delete a role, and withdraw it from all who hold it
    #[command(visible_alias = "rm")]
    Delete {
        #[command(flatten)]
        role: RoleSelector,
        /// Do not ask for confirmation
        #[arg(short, long)]
        yes: bool,
    },
}

/// One role.
#[derive(Debug, Args)]
pub(super) struct RoleSelector {
    /// Key of the role, as `permgate role list` shows it
    #[arg(add = complete::roles())]
    key: String,
}

const VIEW: ListView = ListView::new("roles", "key", "key name permissions built_in");

impl Role {
    pub(super) fn run(self, global: &Global) -> Result<(), Failure> {
        let client = Client::new(global)?;
        match self {
            Self::Create { key, name, permission } => {
                let name = name.as_ref().unwrap_or(&key);
                let body = json!({ "key": key, "name": name, "permissions": permission });
                let record = client.post("/v1/roles", &body)?;
                global.output.changed(&record, "key", &format!("created {key}"))
            }
            Self::List => global.output.list(client.list("/v1/roles?limit=1000", None)?, VIEW),
            Self::Show(RoleSelector { key }) => {
                let record = client.get(&path_of("roles", &key))?;
                global.output.record(&record, "key")
            }
            Self::Edit { name: None, permission, .. } if permission.is_empty() => {
                Err(Failure::usage("nothing to change: give --name or --permission"))
            }
            Self::Edit { role: RoleSelector { key }, name, permission } => {
                let permissions = Some(permission).filter(|permissions| !permissions.is_empty());
                let body = without_nulls(json!({"name": name, "permissions": permissions}));
                let record = client.patch(&path_of("roles", &key), &body)?;
                global.output.changed(&record, "key", &format!("changed {key}"))
            }
            Self::Delete { role: RoleSelector { key }, yes } => {
                confirm(&format!("Delete the role {key}, and take it from all who hold it?"), yes)?;
                let response = client.delete(&path_of("roles", &key))?;
                global.output.done(&response, &format!("deleted {key}"))
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
