//! Every case of `data/decisions.json` with the pure core: decision, response, and what is forwarded.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

#[path = "support/spec.rs"]
mod spec;

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use permgate::authz::{
    decide::{Credential, Facts, Query, decide},
    forwarding::{Hop, IdentityCache, PeerFields, client_address, edit_request, method_override},
    path::RequestPath,
    rules::{
        BUILT_IN_SERVICE, Origin, PublicPath, PublicSpec, ReadMethod, Rules, ServiceIds, ServiceKey,
        ServiceSpec, Settings,
    },
    secret::{Bearer, BearerForm, Digest, TokenId, contains_token},
    subject::{
        Access, Directory, GroupIx, Permission, Permissions, Scope, ServiceSet, Token, TokenEnd,
        TokenRestrictions, User, UserIx,
    },
    time::Timestamp,
};
use serde_json::Value;

#[test]
fn decisions() {
    let data: Value = serde_json::from_str(include_str!("data/decisions.json")).unwrap();
    let vectors = data["vectors"].as_array().unwrap();
    assert!(vectors.len() >= 81);
    for vector in vectors {
        let fixture = with_override(&data["fixture"], &vector["override"]);
        let now = vector["request"]["now"].as_str().or(data["now"].as_str());
        World::of(&fixture).check(vector, time(now.unwrap()));
    }
}

#[test]
fn token_texts() {
    let data: Value = serde_json::from_str(include_str!("data/decisions.json")).unwrap();
    for vector in data["token_format_vectors"].as_array().unwrap() {
        let text = vector["text"].as_str().unwrap();
        let own = Bearer::parse(text).is_some_and(|bearer| bearer.classify(false).1 == BearerForm::Own);
        assert_eq!(Some(own), vector["well_formed"].as_bool(), "{text:?}");
    }
}

struct World {
    rules: Rules,
    directory: Directory,
    tokens: HashMap<Digest, Token>,
}

impl World {
    fn of(fixture: &Value) -> Self {
        let mut ids = ServiceIds::default();
        let specs = list(fixture, "services").filter(|s| s["key"] != BUILT_IN_SERVICE).map(service).collect();
        let public = list(fixture, "services").filter(|s| s["public"] == true).flat_map(public).collect();
        let settings = Settings {
            perm_alias: fixture["settings"]["accept_perm_alias"].as_bool().unwrap(),
            trusted_proxies: texts(&fixture["settings"]["trusted_proxies"])
                .map(|net| net.parse().unwrap())
                .collect(),
        };
        let rules = Rules::compile(specs, public, settings, &mut ids).unwrap();
        let directory = directory(fixture, &rules);
        let tokens = list(fixture, "tokens").map(|row| token(row, fixture, &rules)).collect();
        Self { rules, directory, tokens }
    }

    fn check(&self, vector: &Value, now: Timestamp) {
        let (request, expect) = (&vector["request"], &vector["expect"]);
        let name = vector["id"].as_str().unwrap();
        let mut headers = HeaderMap::new();
        for field in request["headers"].as_array().unwrap() {
            let field_name = HeaderName::try_from(field[0].as_str().unwrap()).unwrap();
            headers.append(field_name, HeaderValue::from_str(field[1].as_str().unwrap()).unwrap());
        }
        let target = request["target"].as_str().unwrap();
        let method: Method = request["method"].as_str().unwrap().parse().unwrap();
        let peer: IpAddr = request["peer_ip"].as_str().unwrap().parse().unwrap();
        let trusted = &self.rules.settings.trusted_proxies;
        let peer_trusted = trusted.contains(peer);
        let query = Query {
            method: &method,
            host: None,
            path: RequestPath::parse(target.split('?').next().unwrap()),
            token_in_url: contains_token(target),
            credential: Credential::from_headers(&headers, self.rules.settings.perm_alias, false),
            client: client_address(&headers, peer, peer_trusted, trusted).unwrap(),
            upgrade: false,
            method_override: method_override(&headers),
            destination: None,
            stated_hosts: &[],
        };
        let token = query.credential.digest().and_then(|digest| self.tokens.get(digest));
        let facts = Facts { rules: &self.rules, directory: &self.directory, token, imports: false, now };
        match decide(&query, facts) {
            Ok(permit) => {
                assert_eq!(expect["status"], 200, "{name}: forwarded");
                assert_eq!(expect["reason"], permit.reason().code(), "{name}");
                if let Some(upstream) = expect["upstream"].as_str() {
                    assert_eq!(&*permit.owner().service.spec.upstream, upstream, "{name}");
                }
                if let Some(sent) = expect["upstream_target"].as_str() {
                    assert_eq!(target, sent, "{name}");
                    assert!(target.starts_with(query.path.as_ref().unwrap().literal()), "{name}");
                }
                let peer_fields = PeerFields::new(Some(peer), false);
                let hop = Hop {
                    peer: &peer_fields,
                    peer_trusted,
                    host: None,
                    request_id: &HeaderValue::from_static("r1"),
                    destination: None,
                };
                edit_request(&mut headers, &permit, &IdentityCache::new(&self.directory), &hop).unwrap();
                for field in texts(&expect["upstream_headers_absent"]) {
                    assert!(!headers.contains_key(field), "{name}: {field}");
                }
                for (field, value) in expect["upstream_headers"].as_object().into_iter().flatten() {
                    let sent: Vec<_> = headers.get_all(field).iter().map(|v| v.to_str().unwrap()).collect();
                    assert_eq!(sent, [value.as_str().unwrap()], "{name}: {field}");
                }
            }
            Err(denial) => {
                let answer = denial.details();
                assert_eq!(expect["reason"], denial.reason.code(), "{name}");
                assert_eq!(expect["status"], answer.status.as_u16(), "{name}");
                assert_eq!(expect["error"], answer.error, "{name}");
                assert_eq!(expect["www_authenticate"].as_str(), answer.challenge.as_deref(), "{name}");
            }
        }
    }
}

fn service(row: &Value) -> ServiceSpec {
    let reading = [Method::GET, Method::HEAD, Method::OPTIONS];
    let (paths, readers): (Vec<_>, Vec<_>) =
        (texts(&row["paths"]).collect(), texts(&row["access_groups"]).collect());
    ServiceSpec {
        title: row["name"].as_str().unwrap().to_owned(),
        read_methods: reading.map(|method| ReadMethod { method, prefix: None }).into(),
        ..spec::service(row["key"].as_str().unwrap(), &paths, &readers)
    }
}

fn public(row: &Value) -> impl Iterator<Item = PublicSpec> + '_ {
    texts(&row["paths"]).map(|path| PublicSpec {
        service: ServiceKey::parse(row["key"].as_str().unwrap()).unwrap(),
        methods: None,
        path: PublicPath::Prefix(path.to_owned()),
        origin: Origin { file: "decisions.json".into(), line: 1 },
    })
}

fn directory(fixture: &Value, rules: &Rules) -> Directory {
    let groups: Vec<&Value> = list(fixture, "groups").collect();
    let position = |name: &Value| groups.iter().position(|group| group["name"] == *name);
    let users = list(fixture, "users").zip(0..).map(|(row, ix)| {
        let deleted = row["deleted"] == true;
        let mut inside: Vec<usize> = Vec::new();
        for (at, group) in groups.iter().enumerate() {
            let member =
                group["builtin"] == true && !deleted || texts(&group["members"]).any(|m| row["login"] == m);
            let mut next = member.then_some(at);
            while let Some(at) = next {
                inside.push(at);
                next = position(&groups[at]["parent"]);
            }
        }
        inside.sort_unstable();
        inside.dedup();
        let is_in = |name: &Value| position(name).is_some_and(|at| inside.contains(&at));
        let granted =
            list(fixture, "assignments").filter(|a| a["user"] == row["login"] || is_in(&a["group"]));
        let roles = granted.flat_map(|a| list(fixture, "roles").filter(move |role| role["key"] == a["role"]));
        let words = roles.flat_map(|role| texts(&role["permissions"]));
        let permissions: Permissions = words.map(|word| Permission::from_word(word).unwrap()).collect();
        let everything = permissions.contains(Permission::ReadService);
        let readable = rules.services().iter().filter(|service| {
            everything || service.spec.readers.iter().any(|group| is_in(&Value::String(group.clone())))
        });
        Arc::new(User {
            ix: UserIx(ix),
            id: format!("id-{ix}").into(),
            login: row["login"].as_str().unwrap().into(),
            banned: row["banned"] == true,
            deleted,
            permissions,
            readable: readable.map(|service| service.id).collect::<ServiceSet>(),
            groups: inside.iter().map(|at| GroupIx(u32::try_from(*at).unwrap())).collect(),
        })
    });
    let names = groups.iter().map(|group| Arc::from(group["name"].as_str().unwrap())).collect();
    Directory { users: users.collect(), by_login: Arc::default(), groups: Arc::new(names) }
}

fn token(row: &Value, fixture: &Value, rules: &Rules) -> (Digest, Token) {
    let owner = list(fixture, "users").position(|user| user["login"] == row["owner"]).unwrap();
    let scope = row["scope"].as_array().unwrap().iter().map(|entry| {
        let service = rules.service_by_key(entry["service"].as_str().unwrap()).unwrap();
        (service.id, if entry["access"] == "read" { Access::Read } else { Access::Full })
    });
    let end = match (row["revoked_at"].as_str(), row["grace_until"].as_str()) {
        (Some(_), _) => TokenEnd::Revoked,
        (None, Some(at)) => TokenEnd::Rotated { grace_until: time(at) },
        (None, None) => TokenEnd::None,
    };
    let restrictions = TokenRestrictions {
        not_before: row["not_before"].as_str().map(time),
        end,
        allow_ips: texts(&row["allow_ips"]).map(|net| net.parse().unwrap()).collect(),
    };
    let token = Token {
        id: TokenId::parse(row["id"].as_str().unwrap()).unwrap(),
        owner: UserIx(u32::try_from(owner).unwrap()),
        scope: Scope::new(scope).unwrap(),
        expires_at: row["expires_at"].as_str().map(time),
        restrictions: restrictions.into(),
    };
    (Bearer::parse(row["text"].as_str().unwrap()).unwrap().digest(), token)
}

fn time(text: &str) -> Timestamp {
    Timestamp::from_millis(text.parse::<jiff::Timestamp>().unwrap().as_millisecond())
}

fn list<'a>(value: &'a Value, member: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value[member].as_array().unwrap().iter()
}

fn texts(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().map(|text| text.as_str().unwrap())
}

/// Merges objects, and rows of users by login.
fn with_override(fixture: &Value, change: &Value) -> Value {
    let mut changed = fixture.clone();
    for (setting, value) in change["settings"].as_object().into_iter().flatten() {
        changed["settings"][setting] = value.clone();
    }
    for row in change["users"].as_array().into_iter().flatten() {
        let users = changed["users"].as_array_mut().unwrap();
        let user = users.iter_mut().find(|user| user["login"] == row["login"]).unwrap();
        row.as_object().unwrap().iter().for_each(|(member, value)| user[member] = value.clone());
    }
    changed
}
