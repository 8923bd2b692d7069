use http::Method;

use super::*;
use crate::authz::fixture::{compile, origin, service};

fn public(service: &str, path: PublicPath) -> PublicSpec {
    PublicSpec { service: ServiceKey::parse(service).unwrap(), methods: None, path, origin: origin(99) }
}

/// `root` owns `/`, so that nearly every misread path would be forwarded somewhere.
fn gateway() -> Vec<ServiceSpec> {
    vec![
        service("root", &["/"]),
        service("youtrack", &["/api", "/rest"]),
        service("hub", &["/hub/api", "/hub/rest"]),
        service("reports", &["/api/reports"]),
        service("wiki", &["/wiki"]),
        service("npm", &["/npm"]),
    ]
}

fn owner_of(rules: &Rules, path: &str, host: Option<&str>, method: &Method) -> String {
    let Ok(parsed) = RequestPath::parse(path) else { return "refused".to_owned() };
    match rules.owner(&parsed, host, method) {
        Ok(Some(owner)) => owner.service.spec.key.to_string(),
        Ok(None) => "nobody".to_owned(),
        Err(_) => "ambiguous".to_owned(),
    }
}

#[test]
fn readings_that_lead_elsewhere_are_ambiguous() {
    let rules = compile(gateway(), vec![]).unwrap();
    let misread = [
        "/API/x",
        "/Api",
        "/api/REPORTS/1",
        "/WIKI",
        "/hub;x/api",
        "/api;v=1/x",
        "/api;/x",
        "/a%70i/x",
        "/%61pi",
        "/%2561pi",
        "/%252561pi",
        "/api/%72eports",
        "/api/reports%2f1",
        "/api/reports%5c1",
        "/api/reports%252f1",
        "/api/%2freports",
        "/api//reports/1",
        "//api/x",
        "///api",
        "//host/api/x",
        "///host/api/x",
        "//%2fhost/api",
        "/hub../api/x",
        "/hub.%2e/api",
        "/(S(x))/api",
        "/(S(x))ap/(S(x))i",
        "/%2fapi",
        "/%2Fapi/x",
        "/%5capi",
        "/%5Chub%5Capi",
        "/hub//api",
        "/hub%2fapi",
        "/hub%2Fapi%2Fx",
        "/hub%5capi/x",
        "/hub%255capi",
        "/hub/api;x/y",
        "/api/reports;x/1",
        "/api/reports;",
        "/api/;/reports",
        "/api/;a%2freports",
        "/api/x;y%2f%2freports/..%2f",
        "/api/reports%3b/1",
        "/api/reports%253b/1",
        "/api/reports./1",
        "/api/reports%20/1",
        "/api/reports.%20./1",
        "/api/reports+",
        "/api./x",
        "/api%20",
        "/api%20/x",
        "/api%3fx",
        "/api%3Fx/y",
        "/api/reports%23x",
        "/hub/api%3f/x",
        "/%EF%BD%81pi",
        "/%ef%bd%81%ef%bd%90%ef%bd%89/x",
        "/ap%C4%B1/x",
        "/hub%EF%BC%8Fapi",
        "/hub%e2%88%95api",
        "/hub%e2%81%84api",
        "/hub%EF%BC%BCapi",
        "/api/report%C5%BF",
        "/ap%C2%ADi",
        "/api%e2%80%8b",
        "/api/reports%EF%BC%9Bx",
        "/api%EF%BC%9Fx",
        "/api/%25%37%32eports",
        "/api/%2572eports",
        "/hub%25252fapi",
        "/%41PI/x",
        "/%61%50%69/x",
        "/api/reports%E3%80%80/x",
        "/api/reports%C2%A0",
        "/api/r%65ports/1",
        "/api/%EF%BC%B2eports",
        "/%ef%bc%8fapi",
        "/api%2e%20",
        "/wiki%2fx",
        "/WiKi%2Fx",
        "/rest%2e/x",
        "/hub/%61pi",
    ];
    for path in misread {
        let expected = if path.ends_with("..%2f") { "refused" } else { "ambiguous" };
        assert_eq!(owner_of(&rules, path, None, &Method::GET), expected, "{path}");
    }
}

#[test]
fn readings_that_agree_pass() {
    let rules = compile(gateway(), vec![]).unwrap();
    let check = |owner: &str, paths: &[&str]| {
        for path in paths {
            assert_eq!(owner_of(&rules, path, None, &Method::GET), owner, "{path}");
        }
    };
    check(
        "npm",
        &["/npm/@scope%2fname", "/npm/@scope%2Fname/-/name-1.0.0.tgz", "/npm/@Scope%2fName", "/npm"],
    );
    check(
        "youtrack",
        &[
            "/api",
            "/api/",
            "/api/projects/a%2Fb",
            "/api/issues/ABC-1",
            "/rest/x;v=1/b",
            "/api/x%20y",
            "/api/100%25",
            "/api/a//b",
            "/api//",
            "/api/a%2f%2fb",
            "/api/report",
            "/api/reportsx",
            "/api/x/reports",
            "/api/a%5Cb",
            "/api/What%3F",
            "/api/C%23",
            "/api/C++",
            "/api/Dr.",
            "/api/%E2%9C%93",
            "/api/%D0%9F%D1%80..",
            "/api/a%252Fb",
            "/api/x;jsessionid=1",
            "/api/Reports1",
            "/api/(a)'b'!*,$&=~",
            "/api/%40me",
            "/api/50%25%20off",
            "/api/a..b",
        ],
    );
    check(
        "reports",
        &["/api/reports", "/api/reports/", "/api/reports/x%2fy", "/api/reports//1", "/api/reports/;x"],
    );
    check("wiki", &["/wiki/%D0%9F%D1%80%D0%B8", "/wiki/Main;Page", "/wiki/A//B", "/wiki/%C5%BFt"]);
    check("root", &["/", "/x", "//", "/hub", "/hub/x", "/apix", "/a%20b", "/x//y", "/%41bc", "/hub/apix"]);
    check("nobody", &["/.permgate", "/.permgate/whoami"]);
    check("ambiguous", &["/.Permgate/x", "/%2epermgate", "/.permgate%2fx"]);
}

#[test]
fn without_an_owner_nothing_is_ambiguous() {
    let rules = compile(gateway().split_off(1), vec![]).unwrap();
    for path in ["/API/x", "/api%2Freports/1", "/%61pi", "/nothing", "/", "//api", "/.permgate/x"] {
        assert_eq!(owner_of(&rules, path, None, &Method::GET), "nobody", "{path}");
    }
}

#[test]
fn a_named_host_comes_first_then_any_host() {
    let mut own = service("own", &["/", "/api/x"]);
    own.hosts = vec!["a.example".to_owned()];
    let mut part = service("part", &["/part"]);
    part.hosts = vec!["b.example".to_owned(), "c.example.".to_owned()];
    let rules = compile(vec![own, part, service("any", &["/api", "/part/deeper"])], vec![]).unwrap();
    let check = |host: Option<&str>, path: &str, owner: &str| {
        assert_eq!(owner_of(&rules, path, host, &Method::GET), owner, "{host:?} {path}");
    };
    check(Some("a.example"), "/api", "own");
    check(Some("a.example."), "/api", "own");
    check(Some("a.example"), "/.permgate", "nobody");
    check(Some("b.example"), "/part/deeper", "part");
    check(Some("c.example"), "/part", "part");
    check(Some("b.example"), "/api", "any");
    check(Some("b.example"), "/api/%2f", "any");
    check(Some("b.example"), "/PART", "nobody");
    check(Some("d.example"), "/part", "nobody");
    check(None, "/api", "any");
}

#[test]
fn public_and_read_rules_take_part_in_agreement() {
    let mut root = service("root", &["/"]);
    root.read_methods.push(ReadMethod { method: Method::POST, prefix: Some("/search".to_owned()) });
    let mut posting = public("root", PublicPath::Exact("/hook".to_owned()));
    posting.methods = Some(vec![Method::POST]);
    let rules = compile(
        vec![root],
        vec![
            public("root", PublicPath::Prefix("/status".to_owned())),
            public("root", PublicPath::Exact("/robots.txt".to_owned())),
            public("root", PublicPath::Exact("/".to_owned())),
            posting,
        ],
    )
    .unwrap();
    let check = |method: Method, path: &str, expected: Option<(bool, bool)>| {
        let parsed = RequestPath::parse(path).unwrap();
        let owner = rules.owner(&parsed, None, &method);
        let found = owner.ok().map(|owner| owner.map(|o| (o.public.is_some(), o.reading)).unwrap());
        assert_eq!(found, expected, "{method} {path}");
    };
    check(Method::GET, "/status", Some((true, true)));
    check(Method::GET, "/status/x%20y", Some((true, true)));
    check(Method::POST, "/status", Some((false, false)));
    check(Method::GET, "/STATUS", None);
    check(Method::POST, "/STATUS", Some((false, false)));
    check(Method::GET, "/statu%73", None);
    check(Method::GET, "/status%2fx", None);
    check(Method::GET, "/robots.txt", Some((true, true)));
    check(Method::GET, "/robots.txt/", Some((false, true)));
    check(Method::GET, "/robots.txt%3f", None);
    check(Method::GET, "/robots.txt;x", None);
    check(Method::GET, "/", Some((true, true)));
    check(Method::GET, "/x", Some((false, true)));
    check(Method::POST, "/hook", Some((true, false)));
    check(Method::GET, "/hook", Some((false, true)));
    check(Method::POST, "/search/x", Some((false, true)));
    check(Method::POST, "/searching", Some((false, false)));
    check(Method::POST, "/%73earch", None);
    check(Method::POST, "/Search", None);
    check(Method::GET, "/Search", Some((false, true)));
}

#[test]
fn an_allowance_relaxes_one_kind_of_reading_for_one_service() {
    let check = |allow: Allowance, path: &str, owner: &str| {
        let mut services = gateway();
        services[1].allow = vec![allow];
        let rules = compile(services, vec![]).unwrap();
        assert_eq!(owner_of(&rules, path, None, &Method::GET), owner, "{allow:?} {path}");
    };
    check(Allowance::EncodedSlashes, "/api/reports%2f1", "youtrack");
    check(Allowance::EncodedSlashes, "/api//reports/x%2f1", "ambiguous");
    check(Allowance::EncodedSlashes, "/api/%72eports%2f1", "youtrack");
    check(Allowance::EncodedSlashes, "/api/%72eports/1", "ambiguous");
    check(Allowance::EncodedSlashes, "/api/a%2f..%2freports", "refused");
    check(Allowance::EmptySegments, "/api//reports", "youtrack");
    check(Allowance::EmptySegments, "/api/;/reports", "youtrack");
    check(Allowance::PathParameters, "/api/reports;x", "youtrack");
    check(Allowance::PathParameters, "/api/reports;x%2f", "youtrack");
    check(Allowance::PathParameters, "/api/reports%2f;x", "ambiguous");
    check(Allowance::LetterCase, "/api/Reports", "youtrack");
    check(Allowance::LetterCase, "/hub;X/Api", "ambiguous");
}

#[test]
fn a_path_that_is_not_utf8_needs_an_owner_that_allows_it() {
    let mut services = gateway();
    services[1].allow = vec![Allowance::InvalidUtf8];
    let (allowing, strict) = (compile(services, vec![]).unwrap(), compile(gateway(), vec![]).unwrap());
    let check = |path: &str, owner: &str| {
        assert_eq!(owner_of(&allowing, path, None, &Method::GET), owner, "{path}");
        assert_eq!(owner_of(&strict, path, None, &Method::GET), "ambiguous", "{path}");
    };
    check("/api/caf%E9", "youtrack");
    check("/api/%ff", "youtrack");
    check("/api/reports%ff", "ambiguous");
    check("/api/r%ffeports", "ambiguous");
    check("/api/reports/%e9", "ambiguous");
    check("/nobody/%e9", "ambiguous");
}

#[test]
fn a_literal_dot_segment_is_judged_by_agreement() {
    let rules = compile(gateway(), vec![]).unwrap();
    let check =
        |path: &str, owner: &str| assert_eq!(owner_of(&rules, path, None, &Method::GET), owner, "{path}");
    check("/api/./x", "youtrack");
    check("/api/.", "youtrack");
    check("/api/x/./.", "youtrack");
    check("/api/reports/./x", "reports");
    check("/api/./reports/x", "ambiguous");
    check("/./api/x", "ambiguous");
    check("/./x", "root");
    check("/api/./..", "refused");
    check("/api/./%2e/x", "refused");
    check("/api/.%2freports", "refused");
}

#[test]
fn capitals_in_prefixes_count() {
    let rules = compile(vec![service("root", &["/"]), service("shout", &["/API"])], vec![]).unwrap();
    let check =
        |path: &str, owner: &str| assert_eq!(owner_of(&rules, path, None, &Method::GET), owner, "{path}");
    check("/API/x", "shout");
    check("/api/x", "ambiguous");
    check("/other", "root");
}

#[test]
fn contradictions_are_told_with_both_places() {
    let check = |name: &str, services: Vec<ServiceSpec>, rules: Vec<PublicSpec>, expected: &[&str]| {
        let errors = compile(services, rules).map(|_| ()).unwrap_err();
        assert_eq!(errors.len(), expected.len(), "{name}: {errors:?}");
        for (error, part) in errors.iter().zip(expected) {
            assert!(error.message.contains(part), "{name}: {error}");
        }
    };
    let at = |mut spec: ServiceSpec, line: u32| {
        spec.origin = origin(line);
        spec
    };
    let tie = vec![at(service("a", &["/x"]), 3), at(service("b", &["/y", "/x"]), 9)];
    check("tie", tie, vec![], &["\"/x\" belongs to \"b\" and to \"a\" at gateway.toml:3"]);
    check("case", vec![service("a", &["/x"]), service("b", &["/X"])], vec![], &["only in letter case"]);
    check(
        "twice",
        vec![service("a", &["/x"]), service("a", &["/y"])],
        vec![],
        &["defined twice, first at gateway.toml:10"],
    );
    check("built in", vec![service("permgate", &["/x"])], vec![], &["is built in"]);
    check(
        "reserved",
        vec![service("a", &["/.permgate", "/.Permgate/x"])],
        vec![],
        &["is reserved", "is reserved"],
    );
    check("no path", vec![service("a", &[])], vec![], &["1 to 32 paths"]);
    for prefix in ["", "x", "/x/", "//", "/x//y", "/a/../b", "/a;b", "/a%20b", "/a b", "/a."] {
        check(prefix, vec![service("a", &[prefix])], vec![], &["must"]);
    }
    let stray = public("b", PublicPath::Exact("/x".to_owned()));
    check("unknown service", vec![service("a", &["/x"])], vec![stray], &["\"b\", which does not exist"]);
    let outside = public("a", PublicPath::Prefix("/y".to_owned()));
    check(
        "outside",
        vec![service("a", &["/x"])],
        vec![outside],
        &["not below any path of the service \"a\""],
    );
    check(
        "all at once",
        vec![service("permgate", &["x"])],
        vec![public("q", PublicPath::Exact("/".into()))],
        &["built in", "must", "does not exist"],
    );

    let mut hosted = service("b", &["/x"]);
    hosted.hosts = vec!["h".to_owned()];
    assert!(compile(vec![service("a", &["/x"]), hosted.clone()], vec![]).is_ok());
    let mut same = service("a", &["/x"]);
    same.hosts = vec!["g".to_owned(), "h".to_owned()];
    check("tie on a host", vec![same, hosted], vec![], &["on the host \"h\""]);
}

#[test]
fn services_are_found_by_id_and_key() {
    let mut ids = ServiceIds::default();
    ids.intern(&ServiceKey::parse("gone").unwrap());
    let settings = Settings { perm_alias: true, trusted_proxies: Default::default() };
    let rules = Rules::compile(gateway(), vec![], settings, &mut ids).unwrap();
    assert_eq!(rules.services().len(), 7);
    for service in rules.services() {
        assert_eq!(rules.service(service.id).unwrap().spec.key, service.spec.key);
        assert_eq!(rules.service_by_key(service.spec.key.as_str()).unwrap().id, service.id);
    }
    assert!(rules.service(ServiceId(0)).is_none() && rules.service(ServiceId(99)).is_none());
    let built_in = rules.service_by_key(BUILT_IN_SERVICE).unwrap();
    assert_eq!(built_in.spec.readers, ["all-users"]);
}

#[test]
fn a_service_key_is_a_lower_case_word() {
    let check = |key: &str, sound: bool| assert_eq!(ServiceKey::parse(key).is_some(), sound, "{key}");
    check("a", true);
    check("youtrack-2", true);
    check(&"a".repeat(63), true);
    check(&"a".repeat(64), false);
    for key in ["", "2a", "-a", "A", "a_b"] {
        check(key, false);
    }
}
