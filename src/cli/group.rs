//! `permgate group ...`.

use clap::Subcommand;
use serde_json::{Value, json};

use super::{
    Global,
    client::{Client, escape, tell_cut},
    complete,
    confirm::confirm,
    failure::{self, Failure, say},
    hint::{self, Named},
    output::{Columns, ListView, counted},
    token::present,
};

#[derive(Debug, Subcommand)]
pub(super) enum Group {
    /// Create a group
    Create {
        /// Name of the group
        name: String,
        /// A group whose members the members of the new one are, too
        #[arg(long, value_name = "GROUP")]
        parent: Option<String>,
    },
    /// List groups
    #[command(visible_alias = "ls")]
    List,
    /// Show one group
    Show {
        /// Name of the group
        #[arg(add = complete::groups())]
        name: String,
    },
    /// Rename or move a group
    Edit {
        /// Name of the group
        #[arg(add = complete::groups())]
        name: String,
        /// Another name
        #[arg(long, value_name = "NAME")]
        rename: Option<String>,
        /// Another parent; an empty one removes it
        #[arg(long, value_name = "GROUP")]
        parent: Option<String>,
    },
    /// Delete a group
    #[command(visible_alias = "rm")]
    Delete {
        /// Name of the group
        #[arg(add = complete::groups())]
        name: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Add users to a group
    Add {
        /// Name of the group
        #[arg(add = complete::groups())]
        name: String,
        /// Logins of the users
        #[arg(required = true, value_name = "LOGIN", add = complete::logins())]
        logins: Vec<String>,
    },
    /// Remove users from a group
    Remove {
        /// Name of the group
        #[arg(add = complete::groups())]
        name: String,
        /// Logins of the users
        #[arg(required = true, value_name = "LOGIN", add = complete::logins())]
        logins: Vec<String>,
    },
}

const COLUMNS: Columns = &[
    ("NAME", "name"),
    ("PARENT", "parent"),
    ("BUILT IN", "built_in"),
    ("ROLES", "roles"),
    ("MEMBERS", "members"),
];

const VIEW: ListView = ListView { nouns: "groups", sort: &["name"], columns: COLUMNS };

impl Group {
    pub(super) fn run(self, global: &Global) -> Result<(), Failure> {
        let client = Client::new(global)?;
        let changed = |record: &Value, sentence: &str| {
            global.output.changed(record, COLUMNS, sentence)?;
            tell_cut(record);
            Ok(())
        };
        let hinted = |failure: Failure, group: &str| hint::missing(&client, failure, &[Named::Group(group)]);
        match self {
            Self::Create { name, parent } => {
                let body =
                    present([("name", Some(json!(name))), ("parent", parent.clone().map(Value::String))]);
                let record = client
                    .post("/v1/groups", &Value::Object(body))
                    .map_err(|failure| hinted(failure, parent.as_deref().unwrap_or_default()))?;
                changed(&record, &format!("created {name}"))
            }
            Self::List => global.output.list(client.list("/v1/groups?limit=1000", None)?, VIEW),
            Self::Show { name } => {
                let record = client.get(&path(&name)).map_err(|failure| hinted(failure, &name))?;
                global.output.record(&record, COLUMNS)
            }
            Self::Edit { name, rename, parent } => {
                let parent = parent.map(|parent| if parent.is_empty() { Value::Null } else { json!(parent) });
                let body = present([("name", rename.clone().map(Value::String)), ("parent", parent.clone())]);
                if body.is_empty() {
                    return Err(Failure::usage("nothing to change: give --rename or --parent"));
                }
                let parent = parent.as_ref().and_then(Value::as_str).unwrap_or_default();
                let record = client.patch(&path(&name), &Value::Object(body)).map_err(|failure| {
                    hint::missing(&client, failure, &[Named::Group(&name), Named::Group(parent)])
                })?;
                let renamed = rename.map(|new| format!(", now called {new}")).unwrap_or_default();
                changed(&record, &format!("changed {name}{renamed}"))
            }
            Self::Delete { name, yes } => {
                let read = read_by(&client, &name);
                if !yes {
                    let record = client.get(&path(&name)).map_err(|failure| hinted(failure, &name))?;
                    let members = counted(record["members"].as_array().map_or(0, Vec::len) as u64, "member");
                    confirm(&format!("Delete the group {name} with {members}?{read}"), yes)?;
                }
                let answer = client.delete(&path(&name)).map_err(|failure| hinted(failure, &name))?;
                say(&format!("deleted {name}{}{read}", if read.is_empty() { "" } else { "." }));
                tell_cut(&answer);
                Ok(())
            }
            Self::Add { name, logins } => failure::for_each(&logins, |login| {
                let answer = client.put(&member(&name, login)).map_err(|failure| {
                    hint::missing(&client, failure, &[Named::Group(&name), Named::User(login)])
                })?;
                say(&format!("added {login} to {name}"));
                tell_cut(&answer);
                Ok(())
            }),
            Self::Remove { name, logins } => failure::for_each(&logins, |login| {
                let answer = client.delete(&member(&name, login)).map_err(|failure| {
                    hint::missing(&client, failure, &[Named::Group(&name), Named::User(login)])
                })?;
                say(&format!("removed {login} from {name}"));
                tell_cut(&answer);
                Ok(())
            }),
        }
    }
}

/// What those who delete the group should know: the configuration names it as a service's reader. Who may not see that is
/// told nothing.
fn read_by(client: &Client, group: &str) -> String {
    let services = client.list("/v1/services?detailed=true", None).unwrap_or_default();
    let reads = |service: &&Value| {
        let readers = service["readers"].as_array().into_iter().flatten().filter_map(Value::as_str);
        readers.map(str::to_lowercase).any(|reader| reader == group.to_lowercase())
    };
    let keys: Vec<&str> =
        services.iter().filter(reads).filter_map(|service| service["key"].as_str()).collect();
    if keys.is_empty() { String::new() } else { format!(" The readers of {} name it.", keys.join(", ")) }
}

fn path(name: &str) -> String {
    format!("/v1/groups/{}", escape(name))
}

fn member(name: &str, login: &str) -> String {
    format!("{}/members/{}", path(name), escape(login))
}
