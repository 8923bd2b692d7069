//! `permgate grant ...`: roles of users and groups.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    Global,
    client::{Client, escape, tell_cut},
    failure::{Failure, say},
    output::Columns,
    token::present,
};

#[derive(Debug, Subcommand)]
pub(super) enum Grant {
    /// List grants
    List,
    /// Give a role
    Add(Given),
    /// Take a role away
    Remove(Given),
}

#[derive(Debug, Args)]
pub(super) struct Given {
    role: String,
    #[command(flatten)]
    to: To,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct To {
    #[arg(long, value_name = "LOGIN")]
    user: Option<String>,
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
}

const COLUMNS: Columns = &[("ROLE", "role"), ("USER", "user"), ("GROUP", "group")];

impl Grant {
    pub(super) fn run(self, global: &Global) -> Result<(), Failure> {
        let client = Client::new(global)?;
        match self {
            Self::List => global.output.list(&client.list("/v1/grants?limit=1000", None)?, COLUMNS),
            Self::Add(Given { role, to }) => {
                let body = present([
                    ("role", Some(json!(role))),
                    ("user", to.user.clone().map(Value::String)),
                    ("group", to.group.clone().map(Value::String)),
                ]);
                tell_cut(&client.post("/v1/grants", &Value::Object(body))?);
                say(&format!("{} holds {role}", to.name()));
                Ok(())
            }
            Self::Remove(Given { role, to }) => {
                let (kind, name) = match (&to.user, &to.group) {
                    (Some(login), _) => ("user", login),
                    (_, Some(group)) => ("group", group),
                    (None, None) => return Err(Failure::usage("give --user or --group")),
                };
                let query = format!("role={}&{kind}={}", escape(&role), escape(name));
                tell_cut(&client.delete(&format!("/v1/grants?{query}"))?);
                say(&format!("{} does not hold {role}", to.name()));
                Ok(())
            }
        }
    }
}

impl To {
    fn name(&self) -> &str {
        self.user.as_deref().or(self.group.as_deref()).unwrap_or_default()
    }
}
