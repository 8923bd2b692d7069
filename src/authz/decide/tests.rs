use http::Method;

use super::*;
use crate::authz::{
    fixture::{DIGEST, Fixture, NOW, origin, service},
    rules::{PublicPath, PublicSpec, ReadMethod, ServiceId, ServiceKey, ServiceSpec},
    subject::{Scope, ServiceSet},
};

const SENT: Credential = Credential::Bearer { form: BearerForm::Own, digest: Some(DIGEST) };

/// A request for YouTrack that is permitted.
fn query(path: &str) -> Query<'_> {
    Query {
        method: &Method::GET,
        host: None,
        path: RequestPath::parse(path),
        token_in_url: false,
        credential: SENT,
        client: [192, 0, 2, 1].into(),
        upgrade: false,
        method_override: false,
        destination: None,
        stated_hosts: &[],
    }
}

struct Case {
    fixture: Fixture,
    token: Token,
    imports: bool,
}

impl Case {
    fn new() -> Self {
        Self::of(Fixture::new())
    }

    fn of(fixture: Fixture) -> Self {
        let token = fixture.token();
        Self { fixture, token, imports: false }
    }

    /// YouTrack with a public status page below it and a rule that names POST.
    fn public(change: impl FnOnce(&mut ServiceSpec)) -> Self {
        let mut youtrack = service("youtrack", &["/api"]);
        change(&mut youtrack);
        let rule = |path: &str, methods: Option<Vec<Method>>| PublicSpec {
            service: ServiceKey::parse("youtrack").unwrap(),
            methods,
            path: PublicPath::Prefix(path.to_owned()),
            origin: origin(20),
        };
        let rules = vec![rule("/api/status", None), rule("/api/hook", Some(vec![Method::POST, Method::GET]))];
        Self::of(Fixture::of(vec![youtrack], rules))
    }

    fn reason(&self, query: &Query<'_>) -> Reason {
        let facts = Facts { token: Some(&self.token), imports: self.imports, ..self.fixture.facts() };
        decide(query, facts).map_or_else(|denial| denial.reason, |permit| permit.reason())
    }
}

#[test]
fn the_first_hit_answers() {
    // At first everything is wrong. Each line fixes one thing, and the next row answers.
    let mut case = Case::new();
    let far = Timestamp::from_millis(NOW.as_millis() + 1);
    case.token.restrictions.end = TokenEnd::Revoked;
    case.token.expires_at = Some(NOW);
    case.token.restrictions.not_before = Some(far);
    case.token.restrictions.allow_ips = vec!["10.0.0.0/8".parse().unwrap()];
    case.token.scope = Scope::new([(ServiceId(1), Access::Full)]).unwrap();
    case.fixture.change_user(|alice| {
        (alice.deleted, alice.banned) = (true, true);
        alice.readable = ServiceSet::default();
    });
    let mut asked = Query {
        method: &Method::TRACE,
        token_in_url: true,
        credential: Credential::Ambiguous,
        ..query("/%2e")
    };
    let check = |case: &Case, asked: &Query<'_>, expected: Reason| assert_eq!(case.reason(asked), expected);
    check(&case, &asked, Reason::MethodNotSupported);
    let small = ["trace", "Connect"].map(|name| name.parse::<Method>().unwrap());
    for method in [&Method::CONNECT, &small[0], &small[1]] {
        asked.method = method;
        check(&case, &asked, Reason::MethodNotSupported);
    }
    asked.method = &Method::DELETE;
    check(&case, &asked, Reason::BadPath);
    asked.path = RequestPath::parse("/api/%72eports");
    check(&case, &asked, Reason::AmbiguousPath);
    asked.path = RequestPath::parse("/nobody");
    check(&case, &asked, Reason::TokenInUrl);
    asked.token_in_url = false;
    check(&case, &asked, Reason::AmbiguousAuthorization);
    asked.credential = Credential::Missing;
    check(&case, &asked, Reason::MissingCredentials);
    asked.credential = Credential::UnsupportedScheme;
    check(&case, &asked, Reason::UnsupportedScheme);
    asked.credential = Credential::Malformed;
    check(&case, &asked, Reason::MalformedAuthorization);
    asked.credential = Credential::Bearer { form: BearerForm::Foreign, digest: None };
    check(&case, &asked, Reason::MalformedToken);
    asked.credential = Credential::Bearer { form: BearerForm::ChecksumMismatch, digest: None };
    check(&case, &asked, Reason::ChecksumMismatch);
    asked.credential = SENT;
    check(&case, &asked, Reason::OwnerDeleted);
    case.fixture.change_user(|alice| alice.deleted = false);
    check(&case, &asked, Reason::TokenRevoked);
    case.token.restrictions.end = TokenEnd::Rotated { grace_until: NOW };
    check(&case, &asked, Reason::TokenRotated);
    case.token.restrictions.end = TokenEnd::Rotated { grace_until: far };
    check(&case, &asked, Reason::TokenExpired);
    case.token.expires_at = Some(far);
    check(&case, &asked, Reason::TokenNotYetValid);
    case.token.restrictions.not_before = Some(NOW);
    check(&case, &asked, Reason::OwnerBanned);
    case.fixture.change_user(|alice| alice.banned = false);
    check(&case, &asked, Reason::IpNotAllowed);
    asked.client = "::ffff:10.1.1.1".parse().unwrap();
    check(&case, &asked, Reason::NoService);
    asked.path = RequestPath::parse("/api");
    check(&case, &asked, Reason::ReadServiceDenied);
    case.fixture.change_user(|alice| alice.readable = [ServiceId(0)].into_iter().collect());
    check(&case, &asked, Reason::ScopeDenied);
    case.token.scope = Scope::new([(ServiceId(0), Access::Read)]).unwrap();
    check(&case, &asked, Reason::ReadOnlyScope);
    asked.method = &Method::GET;
    check(&case, &Query { upgrade: true, ..asked.clone() }, Reason::ReadOnlyScope);
    check(&case, &Query { method_override: true, ..asked.clone() }, Reason::ReadOnlyScope);
    check(&case, &asked, Reason::Ok);
}

#[test]
fn an_unknown_digest_is_unknown() {
    let mut case = Case::new();
    let facts = case.fixture.facts();
    let denial = decide(&query("/api"), facts).unwrap_err();
    assert_eq!((denial.reason, denial.subject.is_none()), (Reason::UnknownToken, true));
    case.token.owner = crate::authz::subject::UserIx(77);
    assert_eq!(case.reason(&query("/api")), Reason::OwnerDeleted);
}

#[test]
fn foreign_texts_are_looked_up_once_something_is_imported() {
    let foreign = Query {
        credential: Credential::Bearer { form: BearerForm::Foreign, digest: Some(DIGEST) },
        ..query("/api")
    };
    let mut case = Case::new();
    assert_eq!(case.reason(&foreign), Reason::MalformedToken);
    case.imports = true;
    assert_eq!(case.reason(&foreign), Reason::Ok);
}

#[test]
fn a_public_rule_forwards_anonymously_but_never_a_bad_credential() {
    let case = Case::public(|_| {});
    let check = |case: &Case, asked: Query<'_>, expected: Reason| {
        assert_eq!(case.reason(&asked), expected, "{asked:?}");
    };
    let without = |path: &'static str| Query { credential: Credential::Missing, ..query(path) };
    check(&case, without("/api/status"), Reason::OkAnonymous);
    check(
        &case,
        Query { credential: Credential::UnsupportedScheme, ..query("/api/status") },
        Reason::OkAnonymous,
    );
    check(&case, query("/api/status"), Reason::Ok);
    check(&case, without("/api"), Reason::MissingCredentials);
    check(&case, Query { method: &Method::POST, ..without("/api/status") }, Reason::MissingCredentials);
    check(&case, Query { method: &Method::POST, ..without("/api/hook") }, Reason::OkAnonymous);
    check(&case, Query { upgrade: true, ..without("/api/status") }, Reason::MissingCredentials);
    check(&case, Query { upgrade: true, ..without("/api/hook") }, Reason::OkAnonymous);
    check(&case, Query { method_override: true, ..without("/api/status") }, Reason::MissingCredentials);
    check(&case, Query { method_override: true, ..without("/api/hook") }, Reason::MissingCredentials);
    check(
        &case,
        Query { credential: Credential::Malformed, ..query("/api/status") },
        Reason::MalformedAuthorization,
    );
    check(
        &case,
        Query { credential: Credential::Ambiguous, ..query("/api/status") },
        Reason::AmbiguousAuthorization,
    );

    let mut bad = Case::public(|_| {});
    bad.token.expires_at = Some(NOW);
    check(&bad, query("/api/status"), Reason::TokenExpired);
    let mut elsewhere = Case::public(|_| {});
    elsewhere.token.scope = Scope::new([(ServiceId(1), Access::Full)]).unwrap();
    elsewhere.token.expires_at = Some(NOW.plus_seconds(1));
    check(&elsewhere, query("/api/status"), Reason::OkAnonymous);
    check(&elsewhere, query("/api"), Reason::ScopeDenied);
    let facts = Facts { token: Some(&elsewhere.token), ..elsewhere.fixture.facts() };
    let asked = query("/api/status");
    assert_eq!(decide(&asked, facts).unwrap().deadline(), elsewhere.token.expires_at);
}

#[test]
fn methods_of_a_service() {
    let case = Case::public(|youtrack| youtrack.methods = Some(vec![Method::GET, Method::POST]));
    let denial = |asked: &Query<'_>| {
        let facts = Facts { token: Some(&case.token), ..case.fixture.facts() };
        decide(asked, facts).map(|_| ()).map_err(|denial| (denial.reason, denial.details().allow))
    };
    let refused = Err((Reason::MethodNotAllowed, Some("GET, POST".to_owned())));
    assert_eq!(denial(&query("/api")), Ok(()));
    assert_eq!(denial(&Query { method: &Method::PUT, ..query("/api") }), refused);
    assert_eq!(denial(&Query { method_override: true, ..query("/api") }), refused);
    let advice = Reason::MethodNotAllowed.details(None).description;
    assert!(advice.contains("without a method override"), "Allow has the method that was sent: {advice}");
    let stranger = Query { method: &Method::PUT, credential: Credential::Missing, ..query("/api") };
    assert_eq!(denial(&stranger).unwrap_err().0, Reason::MissingCredentials);
    let head = Query { method: &Method::HEAD, credential: Credential::Missing, ..query("/api/status") };
    assert_eq!(denial(&head), refused);
}

#[test]
fn read_methods_below_a_prefix() {
    let mut case = Case::of(Fixture::with(|youtrack| {
        let search = ReadMethod { method: Method::POST, prefix: Some("/api/search".to_owned()) };
        youtrack.read_methods.push(search);
    }));
    case.token.scope = Scope::new([(ServiceId(0), Access::Read)]).unwrap();
    let post = |path: &'static str| Query { method: &Method::POST, ..query(path) };
    assert_eq!(case.reason(&post("/api/search/x")), Reason::Ok);
    assert_eq!(case.reason(&post("/api/searching")), Reason::ReadOnlyScope);
}

#[test]
fn a_permit_ends_with_its_token() {
    let deadline = |expires: Option<i64>, grace: Option<i64>| {
        let mut case = Case::new();
        case.token.expires_at = expires.map(|s| NOW.plus_seconds(s));
        if let Some(grace) = grace {
            case.token.restrictions.end = TokenEnd::Rotated { grace_until: NOW.plus_seconds(grace) };
        }
        let facts = Facts { token: Some(&case.token), ..case.fixture.facts() };
        let asked = query("/api");
        decide(&asked, facts).unwrap().deadline().map(|at| (at.as_millis() - NOW.as_millis()) / 1000)
    };
    assert_eq!(deadline(None, None), None);
    assert_eq!(deadline(Some(5), None), Some(5));
    assert_eq!(deadline(Some(5), Some(3)), Some(3));
    assert_eq!(deadline(Some(2), Some(3)), Some(2));
}

/// A file store of several services: `main` and `other` on one upstream, `apart` on another.
fn stores(change: impl FnOnce(&mut Vec<ServiceSpec>)) -> Case {
    let on = |upstream: &str, key: &str, path: &str| ServiceSpec {
        upstream: upstream.into(),
        ..service(key, &[path])
    };
    let mut services = vec![on("dav", "main", "/a"), on("dav", "other", "/b"), on("s3", "apart", "/c")];
    change(&mut services);
    let open = |key: &str, path: &str| PublicSpec {
        service: ServiceKey::parse(key).unwrap(),
        methods: Some(["COPY", "PUT"].map(|method| method.parse().unwrap()).into()),
        path: PublicPath::Prefix(path.to_owned()),
        origin: origin(20),
    };
    let rules = vec![open("main", "/a/open"), open("other", "/b/open"), open("apart", "/c/open")];
    let mut case = Case::of(Fixture::of(services, rules));
    case.token.scope = Scope::new([(ServiceId(0), Access::Full)]).unwrap();
    case
}

/// Returns the reason for a COPY, and the service that a denial is about.
fn copied(case: &Case, from: &str, to: &str, credential: Credential) -> (Reason, Option<String>) {
    let mut map = http::HeaderMap::new();
    map.insert("destination", to.parse().unwrap());
    let destination = Destination::from_headers(&map, Some(b"gate"));
    let copy = "COPY".parse().unwrap();
    let asked = Query {
        method: &copy,
        credential,
        destination: destination.as_ref(),
        ..query(from.to_owned().leak())
    };
    let facts = Facts { token: Some(&case.token), ..case.fixture.facts() };
    match decide(&asked, facts) {
        Ok(permit) => (permit.reason(), None),
        Err(denial) => (denial.reason, denial.owner.map(|owner| owner.service.spec.key.to_string())),
    }
}

#[test]
fn a_destination_needs_what_the_path_needs_and_full_access() {
    let mut case = stores(|_| {});
    let check = |case: &Case, to: &str, reason: Reason, service: Option<&str>| {
        let found = copied(case, "/a/x", to, SENT);
        assert_eq!((found.0, found.1.as_deref()), (reason, service), "{to}");
    };
    let (bad, main) = (Reason::BadDestination, Some("main"));
    check(&case, "/a/y", Reason::Ok, None);
    check(&case, "http://gate/a/y", Reason::Ok, None);
    check(&case, "http://gate/b/y", Reason::ScopeDenied, Some("other"));
    check(&case, "/nobody", Reason::ReadServiceDenied, None);
    check(&case, "/%61/y", Reason::ReadServiceDenied, None);
    check(&case, "/.permgate/whoami", Reason::ReadServiceDenied, None);
    for to in
        ["/a/../b/y", "/a/%2e%2e/b", "/a/..%2fb/y", "/a/%252e%252e", "http://else/a/y", "y", "//gate/a", ""]
    {
        check(&case, to, bad, main);
    }
    case.token.scope = Scope::new([(ServiceId(0), Access::Full), (ServiceId(1), Access::Read)]).unwrap();
    check(&case, "/b/y", Reason::ReadOnlyScope, Some("other"));
    let all = [0, 1, 2].map(|id| (ServiceId(id), Access::Full));
    case.token.scope = Scope::new(all).unwrap();
    check(&case, "/b/y", Reason::Ok, None);
    check(&case, "/c/y", bad, main);
    case.fixture.change_user(|alice| alice.readable = [ServiceId(0)].into_iter().collect());
    check(&case, "/b/y", Reason::ReadServiceDenied, Some("other"));
    // A caller that may not reach the path learns nothing about the destination.
    case.token.scope = Scope::new([(ServiceId(1), Access::Full)]).unwrap();
    check(&case, "/b/y", Reason::ScopeDenied, main);
    let mut narrow = stores(|services| services[1].methods = Some(vec![Method::GET]));
    narrow.token.scope = Scope::new(all).unwrap();
    check(&narrow, "/b/y", Reason::MethodNotAllowed, Some("other"));
}

#[test]
fn a_destination_counts_for_reading_methods_too() {
    let mut case = stores(|services| {
        services[0].read_methods.push(ReadMethod { method: "COPY".parse().unwrap(), prefix: None });
    });
    case.token.scope = Scope::new([(ServiceId(0), Access::Read)]).unwrap();
    assert_eq!(copied(&case, "/a/x", "/a/y", SENT).0, Reason::ReadOnlyScope);
}

#[test]
fn a_public_rule_opens_its_own_paths_alone() {
    let case = stores(|_| {});
    let check = |to: &str, credential: Credential, reason: Reason| {
        assert_eq!(copied(&case, "/a/open/x", to, credential).0, reason, "{to}");
    };
    check("/a/open/y", Credential::Missing, Reason::OkAnonymous);
    check("/b/open/y", Credential::Missing, Reason::OkAnonymous);
    check("/a/y", Credential::Missing, Reason::MissingCredentials);
    check("/b/y", Credential::Missing, Reason::MissingCredentials);
    check("/nobody", Credential::Missing, Reason::MissingCredentials);
    check("/c/open/y", Credential::Missing, Reason::BadDestination);
    check("/a/y", SENT, Reason::Ok);
    check("/b/open/y", SENT, Reason::OkAnonymous);
    check("/b/y", SENT, Reason::ScopeDenied);
}

#[test]
fn hosts_that_a_trusted_proxy_names_have_the_same_owner_or_the_request_is_refused() {
    let mut admin = service("admin", &["/admin"]);
    admin.hosts = vec!["admin.example".to_owned()];
    let mut own = service("own", &["/api"]);
    own.hosts = vec!["own.example".to_owned()];
    let case = Case::of(Fixture::of(vec![service("any", &["/api", "/admin"]), admin, own], Vec::new()));
    let check = |path: &'static str, hosts: &[&str], expected: Reason| {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let asked = Query { host: Some("public.example"), stated_hosts: &hosts, ..query(path) };
        assert_eq!(case.reason(&asked), expected, "{path} {hosts:?}");
    };
    check("/api", &[], Reason::Ok);
    check("/api", &["public.example", "other.example", "admin.example"], Reason::Ok);
    check("/admin", &["other.example"], Reason::Ok);
    check("/admin", &["admin.example"], Reason::BadForwarded);
    check("/admin", &["other.example", "admin.example."], Reason::BadForwarded);
    check("/api", &["own.example"], Reason::BadForwarded);
    let moved = |to: &'static str, hosts: &[&str], expected: Reason| {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let map = [(http::HeaderName::from_static("destination"), to.parse().unwrap())].into_iter().collect();
        let destination = Destination::from_headers(&map, Some(b"public.example"));
        let asked = Query {
            host: Some("public.example"),
            stated_hosts: &hosts,
            destination: destination.as_ref(),
            ..query("/api")
        };
        assert_eq!(case.reason(&asked), expected, "{to} {hosts:?}");
    };
    moved("/admin/y", &["other.example"], Reason::Ok);
    moved("/admin/y", &["admin.example"], Reason::BadDestination);
    moved("/api/y", &["admin.example"], Reason::Ok);
}
