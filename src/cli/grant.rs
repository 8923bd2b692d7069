//! `permgate grant ...`: roles of users and groups.

use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    Global,
    client::{Client, escape},
    complete,
    failure::Failure,
    output::ListView,
};

#[derive(Debug, Subcommand)]
pub(super) enum Grant {
    /// List who holds which role
    #[command(visible_alias = "ls")]
    List,
    /// Give a role to a user or a group
    Add(GrantArgs),
    /// Take a role from a user or a group
    #[command(visible_alias = "rm")]
    Remove(GrantArgs),
}

#[derive(Debug, Args)]
pub(super) struct GrantArgs {
    /// Key of the role, as `permgate role list` shows it
    #[arg(add = complete::roles())]
    role: String,
    #[command(flatten)]
    to: Recipient,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Recipient {
    /// The user
    #[arg(long, value_name = "LOGIN", add = complete::logins())]
    user: Option<String>,
    /// The group
    #[arg(long, value_name = "NAME", add = complete::groups())]
    group: Option<String>,
}

const VIEW: ListView = ListView::new("grants", "role user group", "role user group");

impl Grant {
    pub(super) fn run(self, global: &Global) -> Result<(), Failure> {
        let client = Client::new(global)?;
        match self {
            Self::List => global.output.list(client.list("/v1/grants?limit=1000", None)?, VIEW),
            Self::Add(given) => given.set(global, &client, true),
            Self::Remove(given) => given.set(global, &client, false),
        }
    }
}

impl GrantArgs {
    fn set(&self, global: &Global, client: &Client, granted: bool) -> Result<(), Failure> {
        let role = &self.role;
        let (kind, name) = match (&self.to.user, &self.to.group) {
            (Some(login), _) => ("user", login),
            (None, Some(group)) => ("group", group),
            (None, None) => return Err(Failure::usage("give --user or --group")),
        };
        let response = if granted {
            client.post("/v1/grants", &json!({"role": role, kind: name}))?
        } else {
            client.delete(&format!("/v1/grants?role={}&{kind}={}", escape(role), escape(name)))?
        };
        let now = if granted { "now" } else { "no longer" };
        global.output.done(&response, &format!("{name} {now} holds {role}"))
    }
}
