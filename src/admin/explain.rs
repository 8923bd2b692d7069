//! `/v1/explain`: the decision about a hypothetical request, step by step.

use http::{Method, uri::PathAndQuery};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{
    ApiResult, Caller, Context, Problem,
    offload::READS,
    tokens,
    wire::{Json, Time, ok},
};
use crate::authz::{
    carriers::{Carried, Carrier, CarrierKind},
    decide::{Credential, Facts, Query},
    explain::{self, Explanation, FICTITIOUS_TOKEN_ID},
    forwarding,
    host::Authority,
    path::RequestPath,
    rules::{Origin, Rules, ServiceKey},
    secret::{self, BearerForm, Digest},
    subject::{Permission, UserIx},
};

/// A request to explain; anonymous without `token_id` and `user`. A `user` stands for a valid token of
/// theirs whose scope fits, so that the response depends on the account alone.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    pub method: String,
    /// An absolute URL, or a path with its query.
    pub url: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub token_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub user: Option<String>,
    /// Where the request has the token of `token_id`, as in `service.NAME.credentials`: `basic`,
    /// `header:X-Api-Key`. Default: the first place in which the path's service accepts tokens.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub carrier: Option<String>,
    /// The client's address. Default: the caller's own.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>)]
    pub client: Option<std::net::IpAddr>,
}

pub async fn explain(context: Context, caller: Caller, Json(body): Json<ExplainRequest>) -> ApiResult {
    Ok(ok(&view(&explain_visible(context, caller, body).await?)))
}

/// The decision, without what the caller may not see. A path may have many readings, so it is made beside the
/// control thread.
pub(super) async fn explain_visible(
    context: Context,
    caller: Caller,
    body: ExplainRequest,
) -> ApiResult<Explanation> {
    READS.run(move || decide(&context, &caller, &body)).await?
}

fn decide(context: &Context, caller: &Caller, body: &ExplainRequest) -> ApiResult<Explanation> {
    let method = Some(body.method.as_bytes()).filter(|method| method.len() <= MAX_METHOD);
    let method = method.and_then(|method| Method::from_bytes(method).ok());
    let method = method.ok_or_else(|| Problem::invalid("The method is not an HTTP method"))?;
    let target = Target::parse(&body.url)?;
    let url_query = body.url.split_once('?').map(|(_, query)| query);
    let snapshot = context.state.snapshot();
    let query = Query {
        method: &method,
        host: target.host.as_deref(),
        path: RequestPath::parse(target.path),
        token_in_url: secret::contains_token(&body.url),
        credential: Credential::Missing,
        client: body.client.unwrap_or(caller.client),
        upgrade: false,
        method_override: url_query.is_some_and(forwarding::has_method_parameter),
        destination: None,
        stated_hosts: &[],
    };
    let facts = Facts {
        rules: &snapshot.rules,
        directory: &snapshot.directory,
        token: None,
        imports: context.state.index().imported() > 0,
        now: Time::now(),
    };
    if body.carrier.is_some() && body.token_id.is_none() {
        return Err(Problem::invalid("A carrier needs the token that is in it: give token_id"));
    }
    let explanation = match (&body.token_id, &body.user) {
        (Some(_), Some(_)) => return Err(Problem::invalid("Give token_id or user, not both")),
        (Some(id), None) => {
            let record = tokens::parse(id)
                .and_then(|id| context.store.token(id)?.ok_or_else(|| Problem::not_found("token")))?;
            if !caller.is(&record.owner) {
                caller.require(Permission::AdminRead)?;
            }
            let form = if record.imported { BearerForm::Foreign } else { BearerForm::Own };
            let carrier = carrier(&snapshot.rules, &query, body.carrier.as_deref())?;
            let credential = credential_in(carrier.clone(), form, record.digest, &snapshot.rules, &query);
            // Browsers send this carrier in no other request.
            let upgrade = carrier == Carrier::Websocket && method == Method::GET;
            let query = Query { credential, upgrade, ..query };
            let explanation = context
                .state
                .index()
                .with(&record.digest, |token| explain::explain(&query, Facts { token, ..facts }));
            with_header_name(&carrier, &query, explanation)
        }
        (None, Some(login)) => {
            let user = user(context, caller, login)?;
            explain::explain_user(&query, facts, user)
        }
        (None, None) => {
            caller.require(Permission::AdminRead)?;
            explain::explain(&query, facts)
        }
    };
    let explanation = if body.user.is_some() { without_token(explanation) } else { explanation };
    Ok(visible_to(caller, &snapshot.rules, explanation))
}

/// The requested carrier, else the first one that the path's service accepts.
fn carrier(rules: &Rules, query: &Query<'_>, asked: Option<&str>) -> ApiResult<Carrier> {
    if let Some(asked) = asked {
        let advice = "The carrier is bearer, basic, raw, websocket or header:NAME";
        return Carrier::parse(asked).ok_or_else(|| Problem::invalid(advice));
    }
    let path = query.path.as_ref().ok();
    let owner = path.and_then(|path| rules.owner(path, query.host, query.method).ok().flatten());
    let first = owner.and_then(|owner| owner.service.spec.credentials.iter().next());
    Ok(first.unwrap_or(Carrier::Bearer))
}

/// The credential that results if the token is in this carrier alone.
fn credential_in(
    carrier: Carrier,
    form: BearerForm,
    digest: Digest,
    rules: &Rules,
    query: &Query<'_>,
) -> Credential {
    let digest = Some(digest);
    let (authorization, others) = match carrier.kind() {
        None => (Credential::Bearer { form, digest }, Vec::new()),
        Some(kind) => {
            let absent =
                if kind.is_authorization() { Credential::UnsupportedScheme } else { Credential::Missing };
            let credential = Credential::Carried { kind, form, digest };
            (absent, vec![Carried::new(carrier, credential)])
        }
    };
    rules.credential(query.path.as_ref().ok(), query.host, query.method, authorization, &others).0
}

/// Adds the header's name to the explanation: the decision has the carrier's kind only.
fn with_header_name(carrier: &Carrier, query: &Query<'_>, mut explanation: Explanation) -> Explanation {
    if let (Carrier::Header(name), Some(CarrierKind::Header)) = (carrier, query.credential.kind()) {
        for step in explanation.steps.iter_mut().filter(|step| step.name == "credential") {
            step.looked_at = format!("the field {name}");
        }
    }
    explanation
}

/// Removes the fictitious token from an explanation about a user.
fn without_token(mut explanation: Explanation) -> Explanation {
    let named =
        |text: &mut String| *text = text.replace(&format!("token {FICTITIOUS_TOKEN_ID}"), "a valid token");
    for step in &mut explanation.steps {
        named(&mut step.looked_at);
        named(&mut step.result);
    }
    if let Ok(Some(forwarded)) = &mut explanation.outcome {
        for (_, value) in &mut forwarded.set {
            *value = value.replace(FICTITIOUS_TOKEN_ID, "(the token's id)");
        }
    }
    explanation
}

/// Without the permission to see the configuration, hides services that the caller cannot read, and which
/// groups read a service.
fn visible_to(caller: &Caller, rules: &Rules, mut explanation: Explanation) -> Explanation {
    if caller.require(Permission::AdminRead).is_ok() {
        return explanation;
    }
    let service = explanation.service.as_ref().and_then(|key| rules.service_by_key(key.as_str()));
    let unreadable =
        service.is_some_and(|service| !caller.user().is_some_and(|user| user.readable.contains(service.id)));
    let hidden = || "hidden: this needs the permission admin-read".to_owned();
    for step in &mut explanation.steps {
        step.origin = None;
        if step.name == "read service" {
            step.looked_at = "the readers of the service".to_owned();
        }
        const OF_SERVICE: [&str; 6] =
            ["owner", "credential", "service", "service methods", "scope", "below the path"];
        if unreadable && OF_SERVICE.contains(&step.name) {
            (step.looked_at, step.result) = (hidden(), hidden());
        }
    }
    explanation.origin = None;
    if unreadable {
        explanation.service = None;
    }
    explanation
}

fn user(context: &Context, caller: &Caller, login: &str) -> ApiResult<UserIx> {
    let accounts = context.store.accounts();
    Ok(caller.visible(accounts.user_by_login(&caller.login(login)?), &[Permission::AdminRead])?.ix)
}

/// The longest URL and method in bytes: the default limits of a request.
const MAX_URL: usize = 16 << 10;
const MAX_METHOD: usize = 32;

/// A URL, split into a request's Host and path.
struct Target<'a> {
    host: Option<String>,
    path: &'a str,
}

impl<'a> Target<'a> {
    /// Leaves the path as written: a parser that normalized it would explain another request.
    fn parse(url: &'a str) -> ApiResult<Self> {
        if url.len() > MAX_URL {
            return Err(Problem::invalid(format!("The URL has more than {MAX_URL} bytes")));
        }
        let (host, rest) = match url.split_once("://") {
            _ if url.starts_with('/') => (None, url),
            Some(("http" | "https", rest)) => {
                let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
                let (authority, rest) = rest.split_at(end);
                let host =
                    Authority::parse(authority.as_bytes()).map(|authority| authority.host.into_owned());
                (Some(host.ok_or_else(|| Problem::invalid("The URL has no valid host"))?), rest)
            }
            _ => return Err(Problem::invalid("The URL is http://, https:// or a path that begins with /")),
        };
        let rest = &rest[..rest.find('#').unwrap_or(rest.len())];
        let (path, query) = rest.split_at(rest.find('?').unwrap_or(rest.len()));
        // The parser of requests refuses some characters there.
        if PathAndQuery::try_from(query).is_err() && !query.is_empty() {
            let advice = "The query has characters that a request must percent-encode: it would be 400";
            return Err(Problem::invalid(advice));
        }
        Ok(Self { host, path: if path.is_empty() { "/" } else { path } })
    }
}

fn view(explanation: &Explanation) -> Value {
    let steps: Vec<Value> = explanation
        .steps
        .iter()
        .map(|step| {
            json!({
                "step": step.name,
                "looked_at": step.looked_at,
                "result": step.result,
                "origin": step.origin.as_ref().map(origin),
            })
        })
        .collect();
    let mut body = json!({
        "reason": explanation.reason.code(),
        "service": explanation.service.as_ref().map(ServiceKey::as_str),
        "origin": explanation.origin.as_ref().map(origin),
        "steps": steps,
    });
    match &explanation.outcome {
        Ok(None) => body["outcome"] = "answered".into(),
        Ok(Some(forwarded)) => {
            body["outcome"] = "forwarded".into();
            body["forwarded"] = json!({
                "upstream": forwarded.upstream,
                "path": forwarded.path,
                "set": forwarded.set.iter().map(|(name, value)| json!({"name": name, "value": value})).collect::<Vec<_>>(),
                "dropped": forwarded.dropped,
            });
        }
        Err(details) => {
            body["outcome"] = "denied".into();
            body["answer"] = json!({
                "status": details.status.as_u16(),
                "error": details.error,
                "error_description": details.description,
                "www_authenticate": details.challenge,
                "allow": details.allow,
            });
        }
    }
    body
}

fn origin(origin: &Origin) -> Value {
    json!({"file": &*origin.file, "line": origin.line})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_cut_as_a_request_would_carry_it() {
        fn check(url: &str, expected: Option<(Option<&str>, &str)>) {
            let target = Target::parse(url).ok();
            let explanation = target.as_ref().map(|target| (target.host.as_deref(), target.path));
            assert_eq!(explanation, expected, "{url}");
        }
        check("/rest/issue?q=1", Some((None, "/rest/issue")));
        check("/rest/../hub", Some((None, "/rest/../hub")));
        check("http://Example.com:8080/api#x", Some((Some("example.com"), "/api")));
        check("https://example.com", Some((Some("example.com"), "/")));
        check("https://example.com?x=/y", Some((Some("example.com"), "/")));
        check("http://[::1]:80/a", Some((Some("[::1]"), "/a")));
        check("http://[0::1]/a", Some((Some("[::1]"), "/a")));
        check("http://Example.com./a", Some((Some("example.com"), "/a")));
        check("//example.com/a", Some((None, "//example.com/a")));
        check("/a?b=%22", Some((None, "/a")));
        check("/a?b#\"", Some((None, "/a")));
        check("/a?b=\"", None);
        check("http://a?b=<", None);
        check("http:///a", None);
        check("http://a..b/a", None);
        check("http://user@example.com/a", None);
        check(&format!("/{}", "a".repeat(MAX_URL)), None);
        check("ftp://example.com/a", None);
        check("example.com/a", None);
        check("", None);
    }
}
