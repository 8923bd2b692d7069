//! `permgate explain METHOD URL`: shows how the gateway would decide a request.

use std::net::IpAddr;

use clap::Args;
use serde_json::{Value, json};

use super::{
    Global,
    client::{Client, path_of, without_nulls},
    complete,
    failure::Failure,
    hint,
    output::{Format, items, plain, print},
};

#[derive(Debug, Args)]
pub(super) struct Explain {
    /// Method of the request; lower case is accepted
    method: String,
    /// Path of the request, or a URL if the host matters
    url: String,
    /// Send this token, given by its id or name
    #[arg(long, visible_alias = "token", value_name = "TOKEN", conflicts_with = "user", add = complete::tokens())]
    token_id: Option<String>,
    /// Send a valid token of this user whose scope fits
    #[arg(long, value_name = "LOGIN", add = complete::logins())]
    user: Option<String>,
    /// Place of the token in the request: bearer, basic, raw, websocket or header:NAME
    #[arg(long, value_name = "CARRIER", requires = "token_id")]
    carrier: Option<String>,
    /// Address of the client
    #[arg(long, value_name = "ADDRESS")]
    client: Option<IpAddr>,
}

impl Explain {
    pub(super) fn run(&self, global: &Global) -> Result<(), Failure> {
        let listener = Client::new(global)?;
        let token = match &self.token_id {
            Some(token) => Some(hint::token_id(&listener, token, None)?),
            None => None,
        };
        // Methods are case-sensitive, but a method called `get` does not exist.
        let lower = self.method.bytes().all(|byte| byte.is_ascii_lowercase());
        let method = if lower { self.method.to_ascii_uppercase() } else { self.method.clone() };
        let body = without_nulls(json!({
            "method": method, "url": self.url, "token_id": token, "user": self.user, "carrier": self.carrier,
            "client": self.client,
        }));
        let explanation = listener.post("/v1/explain", &body)?;
        let reason = explanation["reason"].as_str().unwrap_or_default();
        global.output.document(&explanation, || show(&explanation), || print(reason))?;
        if explanation["outcome"] != "denied" {
            return Ok(());
        }
        if global.output == Format::Table && reason == "read_service_denied" {
            let owner = || listener.get(&path_of("tokens", token.as_ref()?)).ok();
            if let Some(user) = self.user.clone().or_else(|| Some(owner()?["user"].as_str()?.to_owned())) {
                let scope = json!([{ "service": explanation["service"] }]);
                let denied = Failure::denied().with_error("service_not_readable");
                return Err(hint::unreadable(&listener, denied, &user, &scope));
            }
        }
        // A denial fails the command, so that a pipeline can depend on the decision.
        Err(Failure::denied())
    }
}

/// Prints the steps as a numbered table, then the outcome and what the client or the upstream would get.
fn show(explanation: &Value) -> Result<(), Failure> {
    let steps = explanation["steps"].as_array().map(Vec::as_slice).unwrap_or_default();
    let width = |field: &str| steps.iter().map(|step| text(&step[field]).chars().count()).max().unwrap_or(0);
    let (names, looked_at) = (width("step"), width("looked_at").min(MAX_OBJECT_WIDTH));
    for (number, step) in steps.iter().enumerate() {
        let place = place(&step["origin"]).map_or(String::new(), |place| format!("  ({place})"));
        let (name, object) = (text(&step["step"]), text(&step["looked_at"]));
        print(&format!(
            "{:>2}. {name:names$}  {object:looked_at$}  {}{place}",
            number + 1,
            text(&step["result"])
        ))?;
    }
    let place = place(&explanation["origin"]).map_or(String::new(), |place| format!(", decided by {place}"));
    let outcome = match text(&explanation["outcome"]) {
        answered if answered == "answered" => "answered by the gateway itself".to_owned(),
        outcome => format!("{outcome}: {}", text(&explanation["reason"])),
    };
    print(&format!("\n{outcome}{place}"))?;
    if let Some(response) = explanation["answer"].as_object() {
        print(&format!(
            "{} {}: {}",
            response["status"],
            text(&response["error"]),
            text(&response["error_description"])
        ))?;
        if let Some(challenge) = response["www_authenticate"].as_str() {
            print(&format!("WWW-Authenticate: {challenge}"))?;
        }
    }
    if let Some(sent) = explanation["forwarded"].as_object() {
        print(&format!("to the upstream {}: {}", text(&sent["upstream"]), text(&sent["path"])))?;
        for field in items(&sent["set"]) {
            print(&format!("  + {}: {}", text(&field["name"]), text(&field["value"])))?;
        }
        let dropped = sent["dropped"].as_array().map_or(0, Vec::len);
        print(&format!("  - {dropped} fields, if a client sends them: `-o json` lists them"))?;
    }
    Ok(())
}

/// The widest column of objects, so that a long path does not push the results off the screen.
const MAX_OBJECT_WIDTH: usize = 40;

fn place(origin: &Value) -> Option<String> {
    Some(format!("{}:{}", origin["file"].as_str()?, origin["line"]))
}

fn text(value: &Value) -> String {
    plain(&value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}
