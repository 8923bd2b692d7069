//! The same steps as the decision, told.

use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};

use crate::authz::{
    answer::{Answer, Reason},
    carriers::CarrierKind,
    decide::{Credential, Facts, Observation, Observer, Permit, Query, decide_observed},
    forwarding::{
        ASSERTION, Claims, FieldPattern, FieldPolicy, Hop, Identities, PassFrom, PeerFields, edit_request,
        patterns,
    },
    path::RequestPath,
    rules::{Authorization, Origin, ServiceKey},
    secret::{BearerForm, Digest, TokenId, redact},
    subject::{Access, Directory, Scope, Token, TokenEnd, UserIx},
};

/// A decision with its steps, in the order in which they were taken; the last one decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    pub steps: Vec<Step>,
    pub reason: Reason,
    /// The service, where the decision came that far.
    pub service: Option<ServiceKey>,
    /// The deciding line of the configuration.
    pub origin: Option<Origin>,
    pub outcome: Result<Forwarded, Answer>,
}

/// One step of the decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What was asked: `path`, `owner`, `token`, `scope`, ...
    pub name: &'static str,
    /// What was looked at; a permgate token in it is redacted.
    pub looked_at: String,
    /// What it came to.
    pub result: String,
    /// The rule that was consulted.
    pub origin: Option<Origin>,
}

/// What would be sent, apart from what the client's own fields bring along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// Name of the `[upstream.NAME]`.
    pub upstream: String,
    /// The path, byte for byte; a permgate token in it is redacted.
    pub path: String,
    /// Names and values that are set; credentials are redacted.
    pub set: Vec<(String, String)>,
    /// Names, or `name*` for a whole namespace, of client fields that are dropped.
    pub dropped: Vec<String>,
}

/// Decides as [`crate::authz::decide::decide`] does, by the same code, and tells every step.
pub fn explain(query: &Query<'_>, facts: Facts<'_>) -> Explanation {
    let mut steps = Steps(Vec::new());
    let decided = decide_observed(query, facts, &mut steps);
    let Steps(steps) = steps;
    let origin = steps.iter().rev().find_map(|step| step.origin.clone());
    let (reason, owner, outcome) = match decided {
        Ok(permit) => match forwarded(&permit, query, facts.directory) {
            Ok(forwarded) => (permit.reason(), Some(permit.owner()), Ok(forwarded)),
            Err(reason) => (reason, Some(permit.owner()), Err(reason.answer(None))),
        },
        Err(denial) => (denial.reason, denial.owner, Err(denial.answer())),
    };
    let service = owner.map(|owner| owner.service.spec.key.clone());
    Explanation { steps, reason, service, origin, outcome }
}

/// The id of the token that stands for a user's: it is nobody's.
pub const STAND_IN: &str = "000000000000";

/// Explains as if the user sent a sound token whose scope fits: what the account itself may do.
/// The query's credential and the facts' token are not looked at.
pub fn explain_user(query: &Query<'_>, facts: Facts<'_>, user: UserIx) -> Explanation {
    let owner = query
        .path
        .as_ref()
        .ok()
        .and_then(|path| facts.rules.owner(path, query.host, query.method).ok().flatten());
    // Without an owner the scope is never asked; some service has to stand in it.
    let service = owner.map(|owner| owner.service).or(facts.rules.services().last());
    let Some(scope) = service.and_then(|service| Scope::new([(service.id, Access::Full)])) else {
        return explain(query, facts);
    };
    let token = Token {
        id: TokenId::parse(STAND_IN).expect("twelve base62 characters"),
        owner: user,
        scope,
        not_before: None,
        expires_at: None,
        end: TokenEnd::None,
        allow_ips: Box::default(),
    };
    let digest = Some(Digest::from_bytes([0; 32]));
    let query = Query { credential: Credential::Bearer { form: BearerForm::Own, digest }, ..query.clone() };
    explain(&query, Facts { token: Some(&token), ..facts })
}

struct Steps(Vec<Step>);

impl Observer for Steps {
    fn saw(&mut self, name: &'static str, observe: impl FnOnce() -> Observation) {
        let Observation { looked_at, result, origin } = observe();
        self.0.push(Step { name, looked_at, result, origin });
    }
}

/// The edits of [`edit_request`], made on a request that has a credential and nothing else.
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
        request_id: b"the request's id",
        destination: None,
    };
    edit_request(&mut headers, permit, &Identities::new(directory), &hop)
        .map_err(|_| Reason::IdentityTooLarge)?;
    let claims = Claims::of(permit, directory).map_err(|_| Reason::IdentityTooLarge)?;
    let assertion = claims.map(|claims| (ASSERTION.to_string(), signed(&claims)));
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

/// What an assertion says, without a signature: there is none outside a request.
fn signed(claims: &Claims<'_>) -> String {
    let Claims { service, user_id, login, groups, token } = claims;
    let (groups, token) = (groups.join(", "), token.as_str());
    format!(
        "(signed for each request: aud {service}, sub {user_id}, login {login}, groups [{groups}], token_id {token})"
    )
}

/// What [`edit_request`] lets no client send, for people.
fn dropped(policy: &FieldPolicy) -> Vec<String> {
    let passes =
        |name: &str| policy.pass.iter().any(|field| *field.name == *name && field.from == PassFrom::Anybody);
    let mut names: Vec<&str> = OF_ONE_CONNECTION.into_iter().chain(patterns()).collect();
    names.extend(policy.drop.iter().map(FieldPattern::as_str));
    names.into_iter().filter(|name| !passes(name)).map(str::to_owned).collect()
}

/// Dropped because they concern the client's connection alone.
const OF_ONE_CONNECTION: [&str; 10] = [
    "connection",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-auth*",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::authz::{
        decide::decide,
        fixture::{DIGEST, Fixture},
        rules::{Identity, Secret},
    };

    fn query(path: &str) -> Query<'_> {
        Query {
            method: &Method::GET,
            host: Some("example.org"),
            path: RequestPath::parse(path),
            token_in_url: false,
            credential: Credential::Bearer { form: BearerForm::Own, digest: Some(DIGEST) },
            client: [192, 0, 2, 1].into(),
            upgrade: false,
            method_override: false,
            destination: None,
            stated_hosts: &[],
        }
    }

    #[test]
    fn it_tells_what_the_decision_comes_to() {
        let fixture = Fixture::new();
        let token = fixture.token();
        let check = |path: &str, reason: Reason, last: &str, line: Option<u32>| {
            let facts = Facts { token: Some(&token), ..fixture.facts() };
            let explanation = explain(&query(path), facts);
            let decided =
                decide(&query(path), facts).map_or_else(|denial| denial.reason, |permit| permit.reason());
            assert_eq!((explanation.reason, decided), (reason, reason), "{path}");
            assert_eq!(explanation.steps.last().map(|step| step.name), Some(last), "{path}");
            assert_eq!(explanation.origin.map(|origin| origin.line), line, "{path}");
            assert_eq!(explanation.outcome.is_ok(), reason == Reason::Ok, "{path}");
        };
        check("/api/x", Reason::Ok, "scope", Some(10));
        check("/api/reports", Reason::ScopeDenied, "scope", Some(10));
        check("/api/..", Reason::BadPath, "path", None);
        check("/api/%72eports", Reason::AmbiguousPath, "owner", None);
        check("/nobody", Reason::NoService, "service", None);
    }

    #[test]
    fn it_tells_what_would_be_sent_but_no_credential() {
        let fixture = Fixture::with(|youtrack| {
            youtrack.authorization =
                Authorization::Replace(Secret(HeaderValue::from_static("Basic c2VjcmV0")));
        });
        let token = fixture.token();
        let facts = Facts { token: Some(&token), ..fixture.facts() };
        let text = "pgt_A1iceYt00001_fAP2l3cGjaBAHokSsW17RyEusf3hEGifhgPiofGdOYe1Q6rwW";
        let path = format!("/api/{text}");
        let explanation = explain(&query(&path), facts);
        let printed = format!("{explanation:?}");
        assert!(!printed.contains(text) && !printed.contains("c2VjcmV0"), "{printed}");
        let forwarded = explanation.outcome.unwrap();
        assert_eq!(
            (forwarded.upstream.as_str(), forwarded.path.as_str()),
            ("youtrack", "/api/pgt_A1iceYt00001_...")
        );
        for field in [("x-permgate-user", "alice"), ("authorization", "(redacted)")] {
            assert!(forwarded.set.contains(&(field.0.to_owned(), field.1.to_owned())), "{field:?}");
        }
    }

    #[test]
    fn it_tells_what_would_be_signed() {
        let fixture = Fixture::with(|youtrack| youtrack.identity = Identity::Jwt);
        let token = fixture.token();
        let facts = Facts { token: Some(&token), ..fixture.facts() };
        let set = explain(&query("/api/x"), facts).outcome.unwrap().set;
        let ours: Vec<_> = set.iter().filter(|(name, _)| name.starts_with("x-permgate")).collect();
        let assertion = "(signed for each request: aud youtrack, sub id-alice, login alice, groups [developers], token_id A1iceYt00001)";
        assert_eq!(ours, [&("x-permgate-assertion".to_owned(), assertion.to_owned())]);
    }

    #[test]
    fn a_user_is_explained_without_a_token() {
        let mut fixture = Fixture::new();
        let explain_alice = |fixture: &Fixture, path: &str| {
            explain_user(
                &Query { credential: Credential::Missing, ..query(path) },
                fixture.facts(),
                UserIx(0),
            )
            .reason
        };
        assert_eq!(explain_alice(&fixture, "/api/reports/1"), Reason::Ok);
        assert_eq!(explain_alice(&fixture, "/nobody"), Reason::NoService);
        fixture.change_user(|alice| alice.readable = [].into_iter().collect());
        assert_eq!(explain_alice(&fixture, "/api/reports/1"), Reason::ReadServiceDenied);
    }
}
