//! `permgate grant ...`: roles of users and groups.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    Global,
    client::{Client, escape, tell_cut},
    complete,
    failure::{Failure, say},
    hint::{self, Named},
    output::{Columns, ListView},
    token::present,
};

#[derive(Debug, Subcommand)]
pub(super) enum Grant {
    /// List who holds which role
    #[command(visible_alias = "ls")]
    List,
    /// Give a role to a user or a group
    Add(Given),
    /// Take a role from a user or a group
    #[command(visible_alias = "rm")]
    Remove(Given),
}

#[derive(Debug, Args)]
pub(super) struct Given {
    /// Key of the role, as `permgate role list` shows it
    #[arg(add = complete::roles())]
    role: String,
    #[command(flatten)]
    to: To,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct To {
    /// The user
    #[arg(long, value_name = "LOGIN", add = complete::logins())]
    user: Option<String>,
    /// The group
    #[arg(long, value_name = "NAME", add = complete::groups())]
    group: Option<String>,
}

const COLUMNS: Columns = &[("ROLE", "role"), ("USER", "user"), ("GROUP", "group")];

const VIEW: ListView = ListView { nouns: "grants", sort: &["role", "user", "group"], columns: COLUMNS };

impl Grant {
    pub(super) fn run(self, global: &Global) -> Result<(), Failure> {
        let client = Client::new(global)?;
        match self {
            Self::List => global.output.list(client.list("/v1/grants?limit=1000", None)?, VIEW),
            Self::Add(Given { role, to }) => {
                let body = present([
                    ("role", Some(json!(role))),
                    ("user", to.user.clone().map(Value::String)),
                    ("group", to.group.clone().map(Value::String)),
                ]);
                let answer = client
                    .post("/v1/grants", &Value::Object(body))
                    .map_err(|failure| to.hinted(&client, failure, &role))?;
                say(&format!("{} now holds {role}", to.name()));
                tell_cut(&answer);
                Ok(())
            }
            Self::Remove(Given { role, to }) => {
                let (kind, name) = match (&to.user, &to.group) {
                    (Some(login), _) => ("user", login),
                    (_, Some(group)) => ("group", group),
                    (None, None) => return Err(Failure::usage("give --user or --group")),
                };
                let query = format!("role={}&{kind}={}", escape(&role), escape(name));
                let answer = client
                    .delete(&format!("/v1/grants?{query}"))
                    .map_err(|failure| to.hinted(&client, failure, &role))?;
                say(&format!("{} no longer holds {role}", to.name()));
                tell_cut(&answer);
                Ok(())
            }
        }
    }
}

impl To {
    fn hinted(&self, client: &Client, failure: Failure, role: &str) -> Failure {
        let holder = match (&self.user, &self.group) {
            (Some(login), _) => Named::User(login),
            (None, group) => Named::Group(group.as_deref().unwrap_or_default()),
        };
        hint::missing(client, failure, &[Named::Role(role), holder])
    }

    fn name(&self) -> &str {
        self.user.as_deref().or(self.group.as_deref()).unwrap_or_default()
    }
}
