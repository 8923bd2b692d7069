//! `permgate group ...`: groups and their members.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    Global,
    client::{Client, escape, path_of, without_nulls},
    complete,
    confirm::confirm,
    failure::{self, Failure},
    output::{ListView, counted, texts},
};
use crate::authz::accounts::fold;

#[derive(Debug, Subcommand)]
pub(super) enum Group {
    /// Create a group
    Create {
        /// Name of the group
        name: String,
        /// Parent group: members of the new group become members of it
        #[arg(long, value_name = "GROUP")]
        parent: Option<String>,
    },
    /// List groups
    #[command(visible_alias = "ls")]
    List,
    /// Show one group
    Show(GroupSelector),
    /// Rename or move a group
    Edit {
        #[command(flatten)]
        group: GroupSelector,
        /// New name
        #[arg(long, value_name = "NAME")]
        rename: Option<String>,
        /// New parent; an empty value removes it
        #[arg(long, value_name = "GROUP")]
        parent: Option<String>,
    },
    /// Delete a group
    #[command(visible_alias = "rm")]
    Delete {
        #[command(flatten)]
        group: GroupSelector,
        /// Do not ask for confirmation
        #[arg(short, long)]
        yes: bool,
    },
    /// Add users to a group
    Add(Members),
    /// Remove users from a group
    Remove(Members),
}

/// One group.
#[derive(Debug, Args)]
pub(super) struct GroupSelector {
    /// Name of the group
    #[arg(add = complete::groups())]
    name: String,
}

#[derive(Debug, Args)]
pub(super) struct Members {
    #[command(flatten)]
    group: GroupSelector,
    /// Logins of the users
    #[arg(required = true, value_name = "LOGIN", add = complete::logins())]
    logins: Vec<String>,
}

/// Lists have no members: `show` has.
const VIEW: ListView = ListView::new("groups", "name", "name parent built_in roles");

impl Group {
    pub(super) fn run(self, global: &Global) -> Result<(), Failure> {
        let client = Client::new(global)?;
        match self {
            Self::Create { name, parent } => {
                let body = without_nulls(json!({"name": name, "parent": parent}));
                let record = client.post("/v1/groups", &body)?;
                global.output.changed(&record, "name", &format!("created {name}"))
            }
            Self::List => global.output.list(client.list("/v1/groups?limit=1000", None)?, VIEW),
            Self::Show(GroupSelector { name }) => {
                let record = client.get(&path_of("groups", &name))?;
                global.output.record(&record, "name")
            }
            Self::Edit { rename: None, parent: None, .. } => {
                Err(Failure::usage("nothing to change: give --rename or --parent"))
            }
            Self::Edit { group: GroupSelector { name }, rename, parent } => {
                let mut body = without_nulls(json!({"name": rename, "parent": parent}));
                if parent.as_deref() == Some("") {
                    body["parent"] = Value::Null;
                }
                let record = client.patch(&path_of("groups", &name), &body)?;
                let renamed = rename.map(|new| format!(", now called {new}")).unwrap_or_default();
                global.output.changed(&record, "name", &format!("changed {name}{renamed}"))
            }
            Self::Delete { group: GroupSelector { name }, yes } => {
                let read = readers_hint(&client, &name);
                if !yes {
                    let record = client.get(&path_of("groups", &name))?;
                    let members = counted(record["members"].as_array().map_or(0, Vec::len) as u64, "member");
                    confirm(&format!("Delete the group {name} with {members}?{read}"), yes)?;
                }
                let response = client.delete(&path_of("groups", &name))?;
                global.output.done(
                    &response,
                    &format!("deleted {name}{}{read}", if read.is_empty() { "" } else { "." }),
                )
            }
            Self::Add(members) => members.set(global, &client, true),
            Self::Remove(members) => members.set(global, &client, false),
        }
    }
}

impl Members {
    fn set(&self, global: &Global, client: &Client, member: bool) -> Result<(), Failure> {
        let name = &self.group.name;
        failure::for_each(&self.logins, |login| {
            let path = format!("{}/members/{}", path_of("groups", name), escape(login));
            let response = if member { client.put(&path)? } else { client.delete(&path)? };
            let (change, to) = if member { ("added", "to") } else { ("removed", "from") };
            global.output.done(&response, &format!("{change} {login} {to} {name}"))
        })
    }
}

/// A hint for the deletion of a group: the services whose configuration names it as a reader. Empty if the
/// caller may not see that.
fn readers_hint(client: &Client, group: &str) -> String {
    let services = client.list("/v1/services?detailed=true", None).unwrap_or_default();
    let reads = |service: &&Value| {
        let readers = texts(&service["readers"]);
        readers.map(fold).any(|reader| reader == fold(group))
    };
    let keys: Vec<&str> =
        services.iter().filter(reads).filter_map(|service| service["key"].as_str()).collect();
    if keys.is_empty() { String::new() } else { format!(" The readers of {} name it.", keys.join(", ")) }
}
