//! The page that explains a decision: the step that failed, and what helps.

use askama::Template;
use serde::Deserialize;
use serde_json::Value;

use super::{FormQuery, Reader, Shell, render};
use crate::{
    admin::{
        ApiResult, Context, ExplainRequest, Problem,
        explain::explain_visible,
        web::{link, words},
    },
    authz::{
        explain::{Explanation, Step},
        reason::Reason,
        rules::ServiceKey,
        subject::Permission,
    },
};

#[derive(Template)]
#[template(path = "explain.html")]
struct ExplainPage {
    shell: Shell,
    asked: Question,
    verdict: Option<Explained>,
    wrong: Option<String>,
    /// The reason from the access log, in words.
    logged: Option<String>,
    logins: Vec<String>,
}

/// The fields of the page's form.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    #[serde(default)]
    method: String,
    #[serde(default)]
    url: String,
    token_id: Option<String>,
    user: Option<String>,
    client: Option<String>,
    /// The reason from the access log, as its code.
    reason: Option<String>,
}

impl Question {
    /// A line of the access log in the URL's field asks about the request of that line.
    fn expand_log_line(self) -> Self {
        let Ok(Value::Object(line)) = serde_json::from_str(self.url.trim()) else { return self };
        let field = |name: &str| Some(line.get(name)?.as_str()?.to_owned());
        let token_id = field("token_id");
        Self {
            method: field("method").unwrap_or(self.method),
            url: field("path").unwrap_or_default(),
            user: field("user").filter(|_| token_id.is_none()),
            token_id,
            client: field("client"),
            reason: field("reason"),
        }
    }
}

struct Explained {
    explanation: Explanation,
    /// The decision's reason in words.
    reason: String,
    service: Option<String>,
    remedies: Vec<Remedy>,
}

impl Explained {
    /// The step that denied the request.
    fn failed(&self) -> Option<&Step> {
        self.explanation.steps.last().filter(|_| self.explanation.outcome.is_err())
    }

    fn passed(&self) -> &[Step] {
        let steps = &self.explanation.steps;
        &steps[..steps.len() - usize::from(self.failed().is_some())]
    }
}

/// What would make the request work: a call of the API, or a page to visit.
struct Remedy {
    label: String,
    /// The call, such as `PUT /v1/groups/developers/members/alice`, and the call that undoes it.
    call: Option<(String, String)>,
    link: Option<String>,
}

const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
/// The most logins offered in a list; others are typed.
const MAX_OFFERED: usize = 500;

pub async fn show(context: Context, reader: Reader, FormQuery(asked): FormQuery<Question>) -> ApiResult {
    reader.caller.require(Permission::AdminRead)?;
    let asked = asked.expand_log_line();
    let logged = asked.reason.as_deref().map(|code| words::reason(code).to_owned());
    let (verdict, wrong) = match ask(&context, &reader, &asked).await {
        Ok(verdict) => (verdict, None),
        Err(problem) => (None, Some(problem.description().to_owned())),
    };
    let accounts = context.store.accounts();
    let users = accounts.present_users();
    let page = ExplainPage {
        shell: reader.shell("Explain", "/explain"),
        asked,
        verdict,
        wrong,
        logged,
        logins: users.take(MAX_OFFERED).map(|user| user.record.login.clone()).collect(),
    };
    Ok(render(&page))
}

async fn ask(context: &Context, reader: &Reader, asked: &Question) -> ApiResult<Option<Explained>> {
    if asked.url.is_empty() {
        return Ok(None);
    }
    let client = asked.client.as_ref().map(|text| text.trim().parse());
    let client =
        client.transpose().map_err(|_| Problem::invalid("The client is an address, such as 10.0.0.7"))?;
    let request = ExplainRequest {
        method: asked.method.to_ascii_uppercase(),
        url: asked.url.trim().to_owned(),
        token_id: asked.token_id.as_ref().map(|id| id.trim().to_owned()),
        user: asked.user.as_ref().map(|login| login.trim().to_owned()),
        client,
        carrier: None,
    };
    let (user, token_id) = (request.user.clone(), request.token_id.clone());
    let explanation = explain_visible(context.clone(), reader.caller.clone(), request).await?;
    let service = explanation.service.as_ref().map(ToString::to_string);
    let owner = match (&user, &token_id) {
        (Some(login), _) => Some(login.clone()),
        (None, Some(id)) => owner_of(context, id),
        (None, None) => None,
    };
    let remedies = remedies(context, reader, &explanation, owner.as_deref(), token_id.as_deref());
    let reason = words::reason(explanation.reason.code()).to_owned();
    Ok(Some(Explained { explanation, reason, service, remedies }))
}

fn owner_of(context: &Context, id: &str) -> Option<String> {
    let record = context.store.token(crate::admin::tokens::parse(id).ok()?).ok()??;
    Some(context.store.accounts().user_by_id(&record.owner)?.record.login.clone())
}

fn remedies(
    context: &Context,
    reader: &Reader,
    verdict: &Explanation,
    owner: Option<&str>,
    token: Option<&str>,
) -> Vec<Remedy> {
    let page = |label: String, link: String| Remedy { label, call: None, link: Some(link) };
    let own = owner.is_some_and(|login| *login == *reader.user.login);
    let service = verdict.service.as_ref().map(ServiceKey::as_str);
    let line = |label: &str| {
        let line = verdict.origin.as_ref().map_or(1, |origin| origin.line);
        page(label.to_owned(), format!("/configuration#L{line}"))
    };
    match (verdict.reason, owner) {
        (Reason::ReadServiceDenied, Some(user)) if reader.caller.may(Permission::UpdateGroup) => {
            let rules = context.rules();
            let readers = service.and_then(|key| rules.service_by_key(key)).map(|found| &found.spec.readers);
            let group = |name: &String| {
                let path = format!("{}/members/{}", link("/v1/groups", name), user);
                Remedy {
                    label: format!("Add {user} to {name}"),
                    call: Some((format!("PUT {path}"), format!("DELETE {path}"))),
                    link: None,
                }
            };
            let accounts = context.store.accounts();
            let known = |name: &&String| accounts.group_by_name(name).is_some();
            readers.into_iter().flatten().filter(known).map(group).collect()
        }
        (Reason::ScopeDenied | Reason::ReadOnlyScope, _) if own => {
            let link = format!("/profile/authentication#new={}", service.unwrap_or_default());
            vec![page("New token with this service".to_owned(), link)]
        }
        (Reason::OwnerBanned, Some(user)) => vec![page(format!("Go to {user}"), link("/users", user))],
        (
            Reason::TokenExpired
            | Reason::TokenRevoked
            | Reason::TokenRotated
            | Reason::TokenNotYetValid
            | Reason::IpNotAllowed
            | Reason::ScopeDenied
            | Reason::ReadOnlyScope,
            _,
        ) => {
            token.map(|id| page("Go to the token".to_owned(), format!("/tokens/{id}"))).into_iter().collect()
        }
        (Reason::NoService, _) => vec![page("See all services".to_owned(), "/services".to_owned())],
        (Reason::MethodNotAllowed, _) => vec![line("See the configuration")],
        _ => Vec::new(),
    }
}
