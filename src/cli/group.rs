//! `permgate group ...`.

use clap::Subcommand;
use serde_json::{Value, json};

use super::{
    Global,
    client::{Client, escape, tell_cut},
    failure::{Failure, say},
    output::Columns,
    token::present,
};

#[derive(Debug, Subcommand)]
pub(super) enum Group {
    /// Make a group
    Create {
        name: String,
        /// Its members become members of this one too
        #[arg(long, value_name = "GROUP")]
        parent: Option<String>,
    },
    /// List groups
    List,
    /// Show one group
    Show { name: String },
    /// Rename or move a group
    Edit {
        name: String,
        #[arg(long, value_name = "NAME")]
        rename: Option<String>,
        /// Empty takes it away
        #[arg(long, value_name = "GROUP")]
        parent: Option<String>,
    },
    /// Delete a group
    Delete { name: String },
    /// Make users members
    Add {
        name: String,
        #[arg(required = true)]
        logins: Vec<String>,
    },
    /// End the membership of users
    Remove {
        name: String,
        #[arg(required = true)]
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

impl Group {
    pub(super) fn run(self, global: &Global) -> Result<(), Failure> {
        let client = Client::new(global)?;
        let show = |record: &Value| {
            tell_cut(record);
            global.output.record(record, COLUMNS)
        };
        match self {
            Self::Create { name, parent } => {
                let body = present([("name", Some(json!(name))), ("parent", parent.map(Value::String))]);
                show(&client.post("/v1/groups", &Value::Object(body))?)
            }
            Self::List => global.output.list(&client.list("/v1/groups?limit=1000", None)?, COLUMNS),
            Self::Show { name } => show(&client.get(&path(&name))?),
            Self::Edit { name, rename, parent } => {
                let parent = parent.map(|parent| if parent.is_empty() { Value::Null } else { json!(parent) });
                let body = present([("name", rename.map(Value::String)), ("parent", parent)]);
                if body.is_empty() {
                    return Err(Failure::usage("nothing to change: give --rename or --parent"));
                }
                show(&client.patch(&path(&name), &Value::Object(body))?)
            }
            Self::Delete { name } => {
                let answer = client.delete(&path(&name))?;
                say(&format!("deleted {name}"));
                tell_cut(&answer);
                Ok(())
            }
            Self::Add { name, logins } => logins.iter().try_for_each(|login| {
                tell_cut(&client.put(&member(&name, login))?);
                say(&format!("{login} is in {name}"));
                Ok(())
            }),
            Self::Remove { name, logins } => logins.iter().try_for_each(|login| {
                tell_cut(&client.delete(&member(&name, login))?);
                say(&format!("{login} is not in {name}"));
                Ok(())
            }),
        }
    }
}

fn path(name: &str) -> String {
    format!("/v1/groups/{}", escape(name))
}

fn member(name: &str, login: &str) -> String {
    format!("{}/members/{}", path(name), escape(login))
}
