use http::Method;

use super::*;
use crate::authz::{
    decide::decide,
    fixture::{DIGEST, Fixture, service},
    rules::{Identity, Secret},
    subject::{TokenEnd, TokenRestrictions},
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
    check("/.permgate/nothing", Reason::NoService, "service", None);
}

#[test]
fn a_token_is_refused_in_words_and_by_no_line() {
    let mut fixture = Fixture::new();
    let token = fixture.token();
    let at = |seconds: i64| Some(Timestamp::from_millis(seconds * 1000));
    let check = |fixture: &Fixture, token: &Token, reason: Reason, words: &str| {
        let explanation = explain(&query("/api/x"), Facts { token: Some(token), ..fixture.facts() });
        let step = explanation.steps.last().map(|step| (step.name, step.result.as_str()));
        assert_eq!((explanation.reason, step), (reason, Some(("token", words))));
        assert_eq!(explanation.origin, None, "{words}");
    };
    let networks = ["10.0.0.0/8", "192.0.2.9/32"].map(|network| network.parse().unwrap());
    let limited = |limit: &dyn Fn(&mut TokenRestrictions)| {
        let mut token = token.clone();
        limit(&mut token.restrictions);
        token
    };
    let elsewhere = limited(&|restrictions| restrictions.allow_ips = networks.to_vec());
    let words = "may only be used from 10.0.0.0/8, 192.0.2.9/32, and this is 192.0.2.1";
    check(&fixture, &elsewhere, Reason::IpNotAllowed, words);
    let expired = Token { expires_at: at(1), ..token.clone() };
    check(&fixture, &expired, Reason::TokenExpired, "expired at 1970-01-01T00:00:01Z");
    let early = limited(&|restrictions| restrictions.not_before = at(99_999_999_999));
    check(&fixture, &early, Reason::TokenNotYetValid, "is not valid before 5138-11-16T09:46:39Z");
    let revoked = limited(&|restrictions| restrictions.end = TokenEnd::Revoked);
    check(&fixture, &revoked, Reason::TokenRevoked, "was revoked");
    fixture.change_user(|alice| alice.banned = true);
    check(&fixture, &token, Reason::OwnerBanned, "belongs to an account that is disabled");
}

#[test]
fn the_gateways_own_endpoints_are_told_apart_from_services() {
    let fixture = Fixture::new();
    let token = fixture.token();
    let mut revoked = token.clone();
    revoked.restrictions.end = TokenEnd::Revoked;
    let check = |path: &str, token: Option<&Token>, reason: Reason, last: &str| {
        let explanation = explain(&query(path), Facts { token, ..fixture.facts() });
        let step = explanation.steps.last().map(|step| step.name);
        assert_eq!((explanation.reason, step), (reason, Some(last)), "{path}");
        assert_eq!(explanation.outcome == Ok(None), reason == Reason::Answered, "{path}");
        let owner = explanation.steps.iter().find(|step| step.name == "owner").unwrap();
        assert_eq!(owner.result, "belongs to the gateway itself", "{path}");
    };
    for path in ["whoami", "rotate", "auth", "auth/api/x", "jwks.json", "registry", "token"] {
        check(&format!("/.permgate/{path}"), Some(&token), Reason::Answered, "endpoint");
    }
    for path in ["", "/", "/nothing", "/auths", "/whoami/x"] {
        check(&format!("/.permgate{path}"), Some(&token), Reason::NoService, "service");
    }
    check("/.permgate/whoami", Some(&revoked), Reason::TokenRevoked, "token");
    check("/.permgate/token", Some(&revoked), Reason::Answered, "endpoint");
    check("/.permgate/jwks.json", None, Reason::Answered, "endpoint");
}

#[test]
fn it_tells_what_would_be_sent_but_no_credential() {
    let fixture = Fixture::with(|youtrack| {
        youtrack.authorization = Authorization::Replace(Secret(HeaderValue::from_static("Basic c2VjcmV0")));
    });
    let token = fixture.token();
    let facts = Facts { token: Some(&token), ..fixture.facts() };
    let text = "pgt_A1iceYt00001_fAP2l3cGjaBAHokSsW17RyEusf3hEGifhgPiofGdOYe1Q6rwW";
    let path = format!("/api/{text}");
    let explanation = explain(&query(&path), facts);
    let printed = format!("{explanation:?}");
    assert!(!printed.contains(text) && !printed.contains("c2VjcmV0"), "{printed}");
    let forwarded = explanation.outcome.unwrap().unwrap();
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
    let set = explain(&query("/api/x"), facts).outcome.unwrap().unwrap().set;
    let ours: Vec<_> = set.iter().filter(|(name, _)| name.starts_with("x-permgate")).collect();
    let assertion = "(signed for each request: aud youtrack, sub id-alice, login alice, groups [developers], token_id A1iceYt00001)";
    assert_eq!(ours, [&("x-permgate-assertion".to_owned(), assertion.to_owned())]);
}

#[test]
fn a_user_is_explained_without_a_token() {
    let mut fixture = Fixture::new();
    let explain_alice = |fixture: &Fixture, path: &str| {
        explain_user(&Query { credential: Credential::Missing, ..query(path) }, fixture.facts(), UserIx(0))
            .reason
    };
    assert_eq!(explain_alice(&fixture, "/api/reports/1"), Reason::Ok);
    assert_eq!(explain_alice(&fixture, "/nobody"), Reason::NoService);
    let mut reports = service("reports", &["/api/reports"]);
    reports.upstream = "youtrack".into();
    let nested = Fixture::of(vec![service("youtrack", &["/api"]), reports], Vec::new());
    let deletion = Query { method: &Method::DELETE, ..query("/api") };
    let explanation = explain_user(&deletion, nested.facts(), UserIx(0));
    assert_eq!(explanation.reason, Reason::Ok);
    let below = explanation.steps.iter().find(|step| step.name == "below the path").unwrap();
    assert!(below.result.contains("\"/api/reports\" of the service \"reports\""), "{below:?}");
    fixture.change_user(|alice| alice.readable = [].into_iter().collect());
    assert_eq!(explain_alice(&fixture, "/api/reports/1"), Reason::ReadServiceDenied);
}
