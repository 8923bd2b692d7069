//! Properties of the pure core for all inputs: parsing never panics, a permitted path is sent unchanged and
//! has one owner, and taking power away never permits anything.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

#[path = "support/spec.rs"]
mod spec;

use std::{collections::HashSet, net::IpAddr, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use permgate::authz::{
    decide::{Credential, Facts, Query, decide},
    forwarding::{
        FieldPolicy, Hop, IdentityCache, PeerFields, client_address, edit_request, edit_request_trailers,
        has_framing_alias,
    },
    path::{Reading, RequestPath},
    rules::{Origin, PublicPath, PublicSpec, Rules, ServiceId, ServiceIds, ServiceKey, Settings},
    secret::{Bearer, BearerForm, Digest, TokenId, TokenText, contains_token, redact},
    subject::{
        Access, Directory, GroupIx, Permissions, Restrictions, Scope, ServiceSet, Token, User, UserIx,
    },
    time::Timestamp,
};
use proptest::prelude::*;
use spec::service;

const PREFIXES: [&str; 5] = ["/", "/api", "/api/reports", "/hub/api", "/wiki"];
const DIGEST: Digest = Digest::from_bytes([1; 32]);

fn rules() -> Rules {
    let spec = |(number, prefix): (usize, &&str)| {
        service(&format!("s{number}"), &[prefix], &[&format!("g{number}")])
    };
    let public = PublicSpec {
        service: ServiceKey::parse("s4").unwrap(),
        methods: None,
        path: PublicPath::Prefix("/wiki/public".to_owned()),
        origin: Origin { file: "gateway.toml".into(), line: 1 },
    };
    let settings = Settings { perm_alias: true, trusted_proxies: Default::default() };
    let specs = PREFIXES.iter().enumerate().map(spec).collect();
    Rules::compile(specs, vec![public], settings, &mut ServiceIds::default()).unwrap()
}

/// Paths made of pieces that parsers disagree about.
fn hostile_path() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "/",
        "/",
        "/",
        "//",
        "api",
        "API",
        "hub",
        "reports",
        "wiki",
        "public",
        "x",
        ".",
        "..",
        "...",
        ";",
        ";a=1",
        "+",
        "%2f",
        "%2F",
        "%5c",
        "%252f",
        "%25252f",
        "%2e",
        "%252e",
        "%61",
        "%2561",
        "%3b",
        "%3f",
        "%23",
        "%20",
        "%25",
        "%ef%bc%8f",
        "%ef%bc%8e",
        "%ef%bd%81",
        "%e2%88%95",
        "%e2%80%a4",
        "%c5%bf",
        "%25c0%25af",
        "%25u002f",
        "%e3%80%80",
        "r%65ports",
        "%72eports",
        "%00",
        "%c0%ae",
        "%zz",
        "\\",
        " ",
    ]);
    prop::collection::vec(piece, 0..9).prop_map(|pieces| format!("/{}", pieces.concat()))
}

/// How a lenient upstream might read a path: it decodes several times, treats all separators alike, drops
/// parameters, tails and queries, merges slashes, and ignores case. Independent of the code that it checks.
fn careless_reading(path: &str, decoded: usize, fold: bool) -> String {
    let mut text = path.to_owned();
    for _ in 0..decoded {
        let bytes: Vec<u8> = percent_encoding::percent_decode_str(&text).collect();
        text = String::from_utf8_lossy(&bytes).into_owned();
    }
    let end = text.find(['?', '#']).unwrap_or(text.len());
    let text = text[..end].replace('\\', "/");
    let segments =
        text.split('/').map(|segment| segment.split(';').next().unwrap().trim_end_matches(['.', ' ']));
    let merged: Vec<&str> = segments.filter(|segment| !segment.is_empty()).collect();
    let text = format!("/{}", merged.join("/"));
    if fold { text.to_ascii_lowercase() } else { text }
}

fn owner_of(path: &str) -> &'static str {
    let covers = |prefix: &&&str| {
        **prefix == "/"
            || path == **prefix
            || path.strip_prefix(**prefix).is_some_and(|rest| rest.starts_with('/'))
    };
    PREFIXES.iter().filter(covers).max_by_key(|prefix| prefix.len()).unwrap()
}

#[derive(Clone, Debug)]
struct Power {
    scope: Vec<(u16, Access)>,
    /// One group per service, and a role that reads all services.
    groups: HashSet<u16>,
    role: bool,
}

fn power() -> impl Strategy<Value = Power> {
    let access = prop::sample::select(vec![Access::Read, Access::Full]);
    let scope = prop::collection::btree_map(0..5u16, access, 1..5);
    (scope, prop::collection::hash_set(0..5u16, 0..5), any::<bool>())
        .prop_map(|(scope, groups, role)| Power { scope: scope.into_iter().collect(), groups, role })
}

impl Power {
    /// Every way to reduce the power by one step.
    fn reductions(&self) -> Vec<Power> {
        let mut all = Vec::new();
        for entry in self.scope.iter().filter(|_| self.scope.len() > 1) {
            all.push(Power {
                scope: self.scope.iter().filter(|e| *e != entry).copied().collect(),
                ..self.clone()
            });
        }
        for at in 0..self.scope.len() {
            let mut less = self.clone();
            less.scope[at].1 = Access::Read;
            all.push(less);
        }
        for group in &self.groups {
            all.push(Power {
                groups: self.groups.iter().filter(|g| *g != group).copied().collect(),
                ..self.clone()
            });
        }
        all.push(Power { role: false, ..self.clone() });
        all
    }

    /// Whether a request is permitted with an identity. Anonymous access by a public rule needs no power.
    fn permits(&self, rules: &Rules, path: &str, method: &Method, sent: bool) -> Option<bool> {
        let (directory, token) = self.world();
        let query = Query {
            method,
            host: None,
            path: RequestPath::parse(path),
            token_in_url: false,
            credential: if sent {
                Credential::Bearer { form: BearerForm::Own, digest: Some(DIGEST) }
            } else {
                Credential::Missing
            },
            client: [127, 0, 0, 1].into(),
            upgrade: false,
            method_override: false,
            destination: None,
            stated_hosts: &[],
        };
        let now = Timestamp::from_millis(0);
        let facts = Facts { rules, directory: &directory, token: Some(&token), imports: false, now };
        let permit = decide(&query, facts).ok()?;
        assert_eq!(query.path.as_ref().unwrap().literal(), path, "sent byte for byte");
        Some(permit.subject().is_some())
    }

    fn world(&self) -> (Directory, Token) {
        let readable = (0..5u16).filter(|s| self.role || self.groups.contains(s)).map(ServiceId);
        let user = User {
            ix: UserIx(0),
            id: "u".into(),
            login: "u".into(),
            banned: false,
            deleted: false,
            groups: self.groups.iter().map(|g| GroupIx(u32::from(*g))).collect(),
            permissions: Permissions::NONE,
            readable: readable.collect::<ServiceSet>(),
        };
        let directory = Directory { users: vec![Arc::new(user)], ..Directory::default() };
        let token = Token {
            id: TokenId::parse("000000000000").unwrap(),
            owner: UserIx(0),
            scope: Scope::new(self.scope.iter().map(|(s, access)| (ServiceId(*s), *access))).unwrap(),
            expires_at: None,
            restrictions: Restrictions::NONE,
        };
        (directory, token)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn path_has_one_owner_in_every_reading(path in hostile_path()) {
        let rules = rules();
        let Ok(parsed) = RequestPath::parse(&path) else { return Ok(()) };
        prop_assert_eq!(parsed.literal(), path.as_str());
        let Ok(Some(owner)) = rules.owner(&parsed, None, &Method::GET) else { return Ok(()) };
        // A literal `.` segment stays, and no reading creates another one.
        let dotted = path.split('/').any(|segment| segment == ".");
        let is_refused = |segment: &str| segment == ".." || segment == "." && !dotted;
        for decoded in 0..=2 {
            for fold in [false, true] {
                let read = careless_reading(&path, decoded, fold);
                prop_assert_eq!(owner.prefix, owner_of(&read), "{} as {}", &path, &read);
                prop_assert!(!read.split('/').any(is_refused), "{} as {}", &path, &read);
                let bare: Vec<&str> = read.split('/').skip(1).filter(|segment| *segment != ".").collect();
                prop_assert_eq!(owner.prefix, owner_of(&format!("/{}", bare.join("/"))), "{} as {}", &path, &read);
            }
        }
        for reading in parsed.readings().iter().map(Reading::text) {
            let dots = reading.split(['/', '\\']).any(is_refused);
            prop_assert!(!dots, "{} as {}", &path, reading);
        }
    }

    #[test]
    fn reducing_power_never_permits_more(
        power in power(),
        path in prop::sample::select(vec!["/x", "/api/x", "/api/reports/1", "/hub/api", "/wiki/a", "/wiki/public"]),
        method in prop::sample::select(vec![Method::GET, Method::POST]),
        sent in any::<bool>(),
    ) {
        let rules = rules();
        let before = power.permits(&rules, path, &method, sent);
        for less in power.reductions() {
            let after = less.permits(&rules, path, &method, sent);
            prop_assert!(after.is_none() || before.is_some(), "{:?} but {:?}", power, less);
            prop_assert!(after != Some(true) || before == Some(true), "{:?} but {:?}", power, less);
        }
    }

    #[test]
    fn parsing_never_panics(text in "\\PC{0,80}", bytes in prop::collection::vec(any::<u8>(), 0..120)) {
        let _ = RequestPath::parse(&text).map(|path| path.readings().len());
        let _ = RequestPath::parse(&format!("/{text}"));
        let _ = Credential::from_field(&bytes, true, true);
        let _ = Credential::from_field(format!("Bearer {text}").as_bytes(), false, true);
        let _ = (Bearer::parse(&text), Digest::from_hex(&text), TokenId::parse(&text), ServiceKey::parse(&text));
        let _ = contains_token(&text);
        prop_assert_eq!(redact(&text), text.as_str());
    }

    #[test]
    fn generated_token_is_recognized_and_never_printed(seed in any::<u64>(), around in "[a-z/?=&%é]{0,20}") {
        let mut state = seed;
        let (id, text) = TokenText::generate(None, &mut |bytes: &mut [u8]| for byte in bytes {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (state >> 56) as u8;
        });
        let (bearer, form) = Bearer::parse(text.expose()).unwrap().classify(true);
        prop_assert_eq!((form, bearer.digest()), (BearerForm::Own, text.digest()));
        let target = format!("{around}{}{around}", text.expose());
        prop_assert!(contains_token(&target));
        prop_assert_eq!(redact(&target), format!("{around}pgt_{id}_...{around}"));
    }

    #[test]
    fn client_fields_never_pass_as_the_gateways(
        fields in prop::collection::vec(("[Xx][-_.](permgate|forwarded|request|original)[-_.](user|id|groups|url|for)", "[ -~]{0,9}"), 0..8),
        connection in "(x-permgate-user|x-forwarded-for|host|close|,| ){0,6}",
    ) {
        let rules = rules();
        let (directory, token) = Power { scope: vec![(0, Access::Full)], groups: [0].into(), role: false }.world();
        let credential = Credential::Bearer { form: BearerForm::Own, digest: Some(DIGEST) };
        let query = Query {
            method: &Method::GET, host: None, path: RequestPath::parse("/x"), token_in_url: false, credential,
            client: [127, 0, 0, 1].into(), upgrade: false, method_override: false,
            destination: None,
            stated_hosts: &[],
        };
        let now = Timestamp::from_millis(0);
        let facts = Facts { rules: &rules, directory: &directory, token: Some(&token), imports: false, now };
        let permit = decide(&query, facts).unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in &fields {
            headers.append(HeaderName::try_from(name.as_str()).unwrap(), HeaderValue::from_str(value.trim()).unwrap());
        }
        headers.append("connection", HeaderValue::from_str(connection.trim()).unwrap());
        let mut trailers = headers.clone();
        let _ = (has_framing_alias(&headers), client_address(&headers, [127, 0, 0, 1].into(), true, &["127.0.0.1/32".parse().unwrap()].into_iter().collect()));
        let peer = PeerFields::new(None, true);
        let hop = Hop { peer: &peer, peer_trusted: false, host: None, request_id: &HeaderValue::from_static("r"), destination: None };
        edit_request(&mut headers, &permit, &IdentityCache::new(&directory), &hop).unwrap();
        edit_request_trailers(&mut trailers, &FieldPolicy::default());
        let ours = ["x-permgate-user", "x-permgate-user-id", "x-permgate-token-id", "x-permgate-service", "x-request-id"];
        for name in headers.keys() {
            let folded = name.as_str().replace(['_', '.'], "-");
            let reserved = ["x-permgate", "x-forwarded", "x-request-id", "x-original-ur"].iter().any(|r| folded.starts_with(r));
            prop_assert!(!reserved || ours.contains(&name.as_str()) || name == "x-forwarded-proto", "{}", name);
            prop_assert_eq!(headers.get_all(name).iter().count() == 1 || !reserved, true);
        }
        prop_assert_eq!(headers.get("x-permgate-user").unwrap(), "u");
        prop_assert!(trailers.is_empty() || trailers.keys().all(|n| !n.as_str().contains("permgate")));
    }

    #[test]
    fn client_cannot_choose_its_address(
        own in prop::collection::vec("(for|by|=|\"|\\\\|,|;| |10[.]6[.]6[.]6|\\[|\\]|:|[!-~]){0,12}", 0..3),
        client in any::<u32>().prop_filter("a trusted proxy's", |client| client >> 8 != 0x00c0_0002),
        host in "[ -~]{0,9}",
        hops in prop::collection::vec((1..255u8, any::<bool>()), 0..3),
    ) {
        let trusted = ["192.0.2.0/24".parse().unwrap()].into_iter().collect();
        let client = IpAddr::from(client.to_be_bytes());
        let said: String = host.chars().flat_map(|c| matches!(c, '"' | '\\').then_some('\\').into_iter().chain([c])).collect();
        let element = |node: IpAddr| format!("for={node};host=\"{said}\"");
        let (mut list, mut elements) = (own.clone(), own);
        let mut add = |address: IpAddr, apart: bool| {
            for (fields, hop) in [(&mut list, address.to_string()), (&mut elements, element(address))] {
                match fields.last_mut() {
                    Some(last) if !apart => *last = format!("{last}, {hop}"),
                    _ => fields.push(hop),
                }
            }
        };
        add(client, false);
        for (number, apart) in hops {
            add(IpAddr::from([192, 0, 2, number]), apart);
        }
        let mut headers = HeaderMap::new();
        for (name, values) in [("x-forwarded-for", list), ("forwarded", elements)] {
            for value in values {
                headers.append(name, HeaderValue::try_from(value).unwrap());
            }
        }
        prop_assert_eq!(client_address(&headers, [192, 0, 2, 1].into(), true, &trusted), Ok(client));
    }

    #[test]
    fn client_address_parsing_never_panics(
        fields in prop::collection::vec((any::<bool>(), "(for=|\"|\\\\|,|;|10[.]0[.]0[.]1|\\[|:|[\\u{20}-\\u{ff}]){0,12}"), 0..4),
    ) {
        let trusted = ["10.0.0.0/8".parse().unwrap()].into_iter().collect();
        let mut headers = HeaderMap::new();
        for (list, value) in fields {
            let name = if list { "x-forwarded-for" } else { "forwarded" };
            headers.append(name, HeaderValue::from_bytes(value.replace('\u{7f}', "").as_bytes()).unwrap());
        }
        let _ = client_address(&headers, [10, 0, 0, 2].into(), true, &trusted);
    }
}
