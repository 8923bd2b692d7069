//! Explains a decision: runs the same code as a request, and reports every step.

use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};

use crate::authz::{
    carriers::CarrierKind,
    decide::{Credential, Facts, Observation, Observer, Permit, Query, decide_observed, services_below},
    forwarding::{
        ASSERTION, Claims, FieldPattern, FieldPolicy, Hop, IdentityCache, PassFrom, PeerFields, edit_request,
        patterns,
    },
    path::RequestPath,
    reason::{ErrorDetails, Reason},
    rules::{Authorization, BuiltinRoute, Origin, ServiceKey},
    secret::{BearerForm, Digest, TokenId, redact},
    subject::{Access, Directory, MAX_ENTRIES, Restrictions, Scope, Token, UserIx},
    time::Timestamp,
};

/// A decision with its steps in order; the last one decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    pub steps: Vec<Step>,
    pub reason: Reason,
    /// The service, if the decision got that far.
    pub service: Option<ServiceKey>,
    /// The configuration line that decided, if one did.
    pub origin: Option<Origin>,
    /// `Ok(None)` if the gateway itself answers.
    pub outcome: Result<Option<Forwarded>, ErrorDetails>,
}

/// One step of the decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What was checked: `path`, `owner`, `token`, `scope`, ...
    pub name: &'static str,
    /// The input of the step; a permgate token in it is redacted.
    pub looked_at: String,
    /// The outcome of the step.
    pub result: String,
    /// The rule that the step applied.
    pub origin: Option<Origin>,
}

/// What would be sent upstream, apart from the client's own fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// The name of the `[upstream.NAME]`.
    pub upstream: String,
    /// The path as the upstream gets it; a permgate token in it is redacted.
    pub path: String,
    /// Names and values of the fields that are set; credentials are redacted.
    pub set: Vec<(String, String)>,
    /// Names of the client's fields that are dropped; `name*` stands for all that begin with `name`.
    pub dropped: Vec<String>,
}

/// Decides as [`crate::authz::decide::decide`] does, by the same code, and returns every step.
pub fn explain(query: &Query<'_>, facts: Facts<'_>) -> Explanation {
    let mut steps = Steps(Vec::new());
    let decided = decide_observed(query, facts, &mut steps);
    let Steps(mut steps) = steps;
    let (reason, owner, outcome) = match decided {
        Ok(permit) => match forwarded(&permit, query, facts.directory) {
            Ok(forwarded) => (permit.reason(), Some(permit.owner()), Ok(Some(forwarded))),
            Err(reason) => (reason, Some(permit.owner()), Err(reason.details(None))),
        },
        Err(denial) => {
            if let Some(step) = steps.last_mut().filter(|step| step.name == "token") {
                step.result = refusal(denial.reason, query, facts.token);
            }
            match report_own_endpoint(&mut steps, denial.reason, query) {
                true => (Reason::Answered, None, Ok(None)),
                false => (denial.reason, denial.owner, Err(denial.details())),
            }
        }
    };
    let by_the_file = matches!(
        reason,
        Reason::Ok
            | Reason::OkAnonymous
            | Reason::WrongCarrier
            | Reason::MethodNotAllowed
            | Reason::ReadServiceDenied
            | Reason::ScopeDenied
            | Reason::ReadOnlyScope
    );
    let origin = steps.last().filter(|_| by_the_file).and_then(|step| step.origin.clone());
    let service = owner.map(|owner| owner.service.spec.key.clone());
    Explanation { steps, reason, service, origin, outcome }
}

/// The id of the fictitious token of [`explain_user`]; no real token has it.
pub const FICTITIOUS_TOKEN_ID: &str = "000000000000";

/// Explains what an account may do, as if the user sent a valid token with a sufficient scope. Ignores the
/// query's credential and the facts' token.
pub fn explain_user(query: &Query<'_>, facts: Facts<'_>, user: UserIx) -> Explanation {
    let path = query.path.as_ref().ok();
    let owner = path.and_then(|path| facts.rules.owner(path, query.host, query.method).ok().flatten());
    let below = path.zip(owner).map(|(path, owner)| services_below(query, path, owner, facts.rules));
    // Without an owner, the scope is never checked, but it must contain some service.
    let service = owner.map(|owner| owner.service).or(facts.rules.services().last());
    let services = service.into_iter().chain(below.iter().flatten().map(|other| other.service));
    let scope = services.take(MAX_ENTRIES).map(|service| (service.id, Access::Full));
    let Some(scope) = Scope::new(scope) else { return explain(query, facts) };
    let token = Token {
        id: TokenId::parse(FICTITIOUS_TOKEN_ID).expect("twelve base62 characters"),
        owner: user,
        scope,
        expires_at: None,
        restrictions: Restrictions::NONE,
    };
    let digest = Some(Digest::from_bytes([0; 32]));
    let query = Query { credential: Credential::Bearer { form: BearerForm::Own, digest }, ..query.clone() };
    explain(&query, Facts { token: Some(&token), ..facts })
}

struct Steps(Vec<Step>);

impl Observer for Steps {
    fn record(&mut self, name: &'static str, observe: impl FnOnce() -> Observation) {
        let Observation { looked_at, result, origin } = observe();
        self.0.push(Step { name, looked_at, result, origin });
    }
}

/// Describes why row 5 refused the token.
fn refusal(reason: Reason, query: &Query<'_>, token: Option<&Token>) -> String {
    let at = |time: Option<Timestamp>| time.and_then(|time| time.rfc3339(0)).unwrap_or_default();
    match (reason, token) {
        (Reason::MalformedToken, _) => "is not in permgate's format, and no tokens were imported".to_owned(),
        (Reason::ChecksumMismatch, _) => "has a wrong checksum: it is mistyped".to_owned(),
        (Reason::UnknownToken, _) => "is unknown".to_owned(),
        (Reason::OwnerDeleted, _) => "belongs to an account that was deleted".to_owned(),
        (Reason::OwnerBanned, _) => "belongs to an account that is disabled".to_owned(),
        (Reason::TokenRevoked, _) => "was revoked".to_owned(),
        (Reason::TokenRotated, _) => "was replaced by a newer one, and its grace period is over".to_owned(),
        (Reason::TokenExpired, Some(token)) => format!("expired at {}", at(token.expires_at)),
        (Reason::TokenNotYetValid, Some(token)) => {
            format!("is not valid before {}", at(token.restrictions.not_before))
        }
        (Reason::IpNotAllowed, Some(token)) => {
            let networks: Vec<String> =
                token.restrictions.allow_ips.iter().map(ToString::to_string).collect();
            format!("may only be used from {}, and this is {}", networks.join(", "), query.client)
        }
        _ => reason.code().to_owned(),
    }
}

/// If the path is one of the gateway's own endpoints, reports that in place of a missing service. Returns
/// whether the gateway answers there.
fn report_own_endpoint(steps: &mut Vec<Step>, reason: Reason, query: &Query<'_>) -> bool {
    let path = query.path.as_ref().map(RequestPath::literal).unwrap_or_default();
    let Some(route) = BuiltinRoute::of(path) else { return false };
    if let Some(owner) = steps.iter_mut().find(|step| step.name == "owner" && reason != Reason::AmbiguousPath)
    {
        owner.result = "belongs to the gateway itself".to_owned();
    }
    let credential = match route {
        BuiltinRoute::Whoami | BuiltinRoute::Rotate => None,
        BuiltinRoute::Auth => Some("the request that the proxy in front describes"),
        BuiltinRoute::Jwks => Some("no credential at all"),
        BuiltinRoute::Registry => Some("the password of the login"),
        BuiltinRoute::Token => Some("the token of the CI system"),
        BuiltinRoute::Unknown => return false,
    };
    // Keeps rows 1 to 5, or those before the credential.
    let end = if credential.is_some() { "credential" } else { "service" };
    let Some(end) = steps.iter().position(|step| step.name == end) else { return false };
    steps.truncate(end);
    let by = credential.map(|credential| format!(" by {credential}")).unwrap_or_default();
    steps.push(Step {
        name: "endpoint",
        looked_at: path.to_owned(),
        result: format!("the gateway itself answers{by}, if this is configured"),
        origin: None,
    });
    true
}

/// Applies [`edit_request`] to a request that has only a credential.
fn forwarded(permit: &Permit<'_>, query: &Query<'_>, directory: &Directory) -> Result<Forwarded, Reason> {
    let spec = &permit.owner().service.spec;
    let mut headers = HeaderMap::new();
    let in_authorization = query.credential.kind().is_none_or(CarrierKind::is_authorization);
    if query.credential != Credential::Missing && in_authorization {
        headers.insert(AUTHORIZATION, HeaderValue::from_static("as the client sent it"));
    }
    let peer = PeerFields::new(Some(query.client), false);
    let hop = Hop {
        peer: &peer,
        peer_trusted: false,
        host: query.host.map(str::as_bytes),
        request_id: &HeaderValue::from_static("the request's id"),
        destination: None,
    };
    edit_request(&mut headers, permit, &IdentityCache::new(directory), &hop)
        .map_err(|_| Reason::IdentityTooLarge)?;
    let claims = Claims::from_permit(permit, directory).map_err(|_| Reason::IdentityTooLarge)?;
    let assertion = claims.map(|claims| (ASSERTION.to_string(), format_claims(&claims)));
    let set = headers.iter().map(|(name, value)| {
        let replaced = name == AUTHORIZATION && matches!(spec.authorization, Authorization::Replace(_));
        let value = if replaced { "(redacted)".into() } else { String::from_utf8_lossy(value.as_bytes()) };
        (name.to_string(), value.into_owned())
    });
    let stripped = (spec.authorization != Authorization::Keep).then_some("authorization");
    let path = query.path.as_ref().map(RequestPath::literal).unwrap_or_default();
    Ok(Forwarded {
        upstream: spec.upstream.to_string(),
        path: redact(path).into_owned(),
        set: set.chain(assertion).collect(),
        dropped: stripped.into_iter().map(str::to_owned).chain(dropped(&spec.fields)).collect(),
    })
}

/// The contents of an assertion. There is no signature without a request.
fn format_claims(claims: &Claims<'_>) -> String {
    let Claims { service, user_id, login, groups, token } = claims;
    let (groups, token) = (groups.join(", "), token.as_str());
    format!(
        "(signed for each request: aud {service}, sub {user_id}, login {login}, groups [{groups}], token_id {token})"
    )
}

/// Names the client fields that [`edit_request`] drops.
fn dropped(policy: &FieldPolicy) -> Vec<String> {
    let passes =
        |name: &str| policy.pass.iter().any(|field| *field.name == *name && field.from == PassFrom::Anybody);
    let mut names: Vec<&str> = HOP_BY_HOP.split(' ').chain(patterns()).collect();
    names.extend(policy.drop.iter().map(FieldPattern::as_str));
    names.into_iter().filter(|name| !passes(name)).map(str::to_owned).collect()
}

/// Fields that are dropped because they concern only the client's connection.
const HOP_BY_HOP: &str = "connection expect http2-settings keep-alive proxy-auth* proxy-connection te trailer \
                          transfer-encoding upgrade";

#[cfg(test)]
mod tests;
