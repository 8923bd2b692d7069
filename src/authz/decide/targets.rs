//! Requests that act on what is below their path, as DELETE, COPY, MOVE and LOCK do on a directory (RFC 4918,
//! 9.6 and 9.8 to 9.10), or whose body names something in it, as for RFC 5842. They need full access to all
//! of it, also where a prefix of another service begins. And the second target of a request, WebDAV's
//! `Destination`: the same request writes to it, so it must pass the checks of the first.

use super::{Query, accepts_method, authorize, is_public};
use crate::authz::{
    destination::Destination,
    path::RequestPath,
    reason::Reason,
    rules::{Owner, Rules},
    subject::Subject,
};

const RECURSIVE: [&str; 7] = ["DELETE", "COPY", "MOVE", "LOCK", "BIND", "REBIND", "UNBIND"];

/// Returns the other services that a request to this path reaches on the owner's upstream.
pub fn services_below<'r>(
    query: &Query<'_>,
    path: &RequestPath<'_>,
    owner: Owner<'r>,
    rules: &'r Rules,
) -> Vec<Owner<'r>> {
    // An upstream may ignore case.
    let is_recursive = RECURSIVE.iter().any(|method| query.method.as_str().eq_ignore_ascii_case(method));
    if !is_recursive && !query.method_override {
        return Vec::new();
    }
    // What is in the place of the destination is deleted.
    let destination = query.destination.and_then(Destination::path).and_then(Result::ok);
    let paths: Vec<_> = [Some(path), destination.as_ref()].into_iter().flatten().collect();
    let hosts: Vec<_> = query.host.into_iter().chain(query.stated_hosts.iter().map(String::as_str)).collect();
    let others = rules.below(&paths, &hosts, &owner.service.spec.upstream);
    others.filter(|other| other.service.id != owner.service.id).collect()
}

/// The owner of the second target.
#[derive(Clone, Copy, Debug)]
pub enum SecondTarget<'r> {
    /// The request has no second target.
    Absent,
    Unowned,
    Owned(Owner<'r>),
}

/// The reason of a denial, and the owner that it may name.
type TargetDenial<'r> = (Reason, Option<Owner<'r>>);

impl<'r> SecondTarget<'r> {
    /// Finds the owner, on which all readings and all hosts named by a trusted proxy must agree, as for the
    /// path.
    pub fn resolve(query: &Query<'_>, rules: &'r Rules) -> Result<Self, Reason> {
        let Some(destination) = query.destination else { return Ok(Self::Absent) };
        let Some(Ok(path)) = destination.path() else { return Err(Reason::BadDestination) };
        let owner = rules.owner(&path, query.host, query.method).map_err(|_| Reason::BadDestination)?;
        let Some(owner) = owner else { return Ok(Self::Unowned) };
        let agreed = rules.is_owner_on(&owner, &path, query.stated_hosts, query.method);
        agreed.then_some(Self::Owned(owner)).ok_or(Reason::BadDestination)
    }

    /// Whether the second target, if any, is public by a rule of its own: one for the path alone is not
    /// enough.
    pub fn is_public(self, query: &Query<'_>) -> bool {
        match self {
            Self::Absent => true,
            Self::Unowned => false,
            Self::Owned(owner) => is_public(&owner, query),
        }
    }

    /// Checks that the subject has full access. An unowned target gets the response of one that the account may
    /// not read.
    pub fn authorize(self, subject: &Subject<'_>) -> Result<(), TargetDenial<'r>> {
        match self {
            Self::Absent => Ok(()),
            Self::Unowned => Err((Reason::ReadServiceDenied, None)),
            Self::Owned(owner) => {
                authorize(subject, owner.service, false).map_err(|reason| (reason, Some(owner)))
            }
        }
    }

    /// Checks that an authorized request can be forwarded: the path's upstream must serve this target too,
    /// and this target's service must accept the method.
    pub fn accepts(self, query: &Query<'_>, first: Owner<'r>) -> Result<(), TargetDenial<'r>> {
        let Self::Owned(owner) = self else { return Ok(()) };
        if owner.service.spec.upstream != first.service.spec.upstream {
            return Err((Reason::BadDestination, Some(first)));
        }
        accepts_method(owner.service, query).then_some(()).ok_or((Reason::MethodNotAllowed, Some(owner)))
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, Method};

    use super::*;
    use crate::authz::{
        decide::{Credential, Facts, decide},
        fixture::{DIGEST, Fixture, service},
        reason::Reason,
        rules::{PublicPath, PublicSpec, ServiceKey, ServiceSpec},
        secret::BearerForm,
        subject::{Access, Scope, Token},
    };

    /// One upstream with `files` at `/dav`, `secret` below it, and others that are not reached.
    fn fixture() -> Fixture {
        let on_disk = |key: &str, path: &str| {
            let mut one = service(key, &[path]);
            one.upstream = "disk".into();
            one
        };
        let mut vhost = on_disk("vhost", "/dav/vhost");
        vhost.hosts = vec!["other.example".to_owned()];
        let elsewhere = service("elsewhere", &["/dav/elsewhere"]);
        let services = vec![
            on_disk("files", "/dav"),
            on_disk("secret", "/dav/a/Secret"),
            vhost,
            elsewhere,
            on_disk("twin", "/dav/a/Sec"),
            on_disk("deep", "/dav/long-name/archive-box/Deep"),
        ];
        let public = PublicSpec {
            service: ServiceKey::parse("files").unwrap(),
            methods: Some(vec![Method::DELETE]),
            path: PublicPath::Prefix("/dav".to_owned()),
            origin: crate::authz::fixture::origin(20),
        };
        Fixture::of(services, vec![public])
    }

    fn reason(token: &Token, credential: Credential, method: &str, path: &str, to: Option<&str>) -> Reason {
        let fixture = fixture();
        let map = to.map(|to| (HeaderName::from_static("destination"), to.parse().unwrap()));
        let destination = Destination::from_headers(&map.into_iter().collect(), None);
        let query = Query {
            method: &method.parse().unwrap(),
            host: Some("gate.example"),
            path: RequestPath::parse(path),
            token_in_url: false,
            credential,
            client: [192, 0, 2, 1].into(),
            upgrade: false,
            method_override: false,
            destination: destination.as_ref(),
            stated_hosts: &[],
        };
        decide(&query, Facts { token: Some(token), ..fixture.facts() })
            .map_or_else(|denial| denial.reason, |permit| permit.reason())
    }

    const SENT: Credential = Credential::Bearer { form: BearerForm::Own, digest: Some(DIGEST) };

    #[test]
    fn whole_directory_needs_access_to_the_services_in_it() {
        let mut token = fixture().token();
        let scope = |services: &[&str], access: Access| {
            let fixture = fixture();
            let full = ["files", "twin"].map(|key| (key, Access::Full));
            let all = full.into_iter().chain(services.iter().map(|key| (*key, access)));
            Scope::new(all.map(|(key, access)| (fixture.rules.service_by_key(key).unwrap().id, access)))
                .unwrap()
        };
        token.scope = scope(&[], Access::Full);
        let check = |token: &Token, method: &str, path: &str, to: Option<&str>, expected: Reason| {
            assert_eq!(reason(token, SENT, method, path, to), expected, "{method} {path} {to:?}");
        };
        for path in ["/dav", "/dav/", "/dav/a", "/dav/a/", "/DAV/a", "/dav//a", "/dav/%61", "/dav/A"] {
            // A path in other letters is refused before, unless its service ignores case, too.
            let expected = if path == "/DAV/a" { Reason::NoService } else { Reason::ScopeDenied };
            check(&token, "DELETE", path, None, expected);
        }
        check(&token, "delete", "/dav/a", None, Reason::ScopeDenied);
        check(&token, "UNBIND", "/dav/a", None, Reason::ScopeDenied);
        check(&token, "MOVE", "/dav/a", Some("/dav/b"), Reason::ScopeDenied);
        check(&token, "LOCK", "/dav/a", None, Reason::ScopeDenied);
        check(&token, "COPY", "/dav/a", Some("/dav/b"), Reason::ScopeDenied);
        check(&token, "COPY", "/dav/b", Some("/dav/a"), Reason::ScopeDenied);
        check(&token, "COPY", "/dav/b", Some("/dav/a/Secrets"), Reason::Ok);
        check(&token, "DELETE", "/dav/a/x", None, Reason::Ok);
        check(&token, "DELETE", "/dav/elsewhere1", None, Reason::Ok);
        // Short names of Windows.
        for path in
            ["/dav/LONG-N~1", "/dav/long-n~1/", "/dav/long-name/ARCHIV~2", "/dav/LONG-N~1/archive-box"]
        {
            check(&token, "DELETE", path, None, Reason::ScopeDenied);
        }
        check(&token, "DELETE", "/dav/OTHER~1", None, Reason::Ok);
        check(&token, "DELETE", "/dav/a/Sec", None, Reason::Ok);
        check(&token, "GET", "/dav/a", None, Reason::Ok);
        check(&token, "PUT", "/dav/a", None, Reason::Ok);
        token.scope = scope(&["secret", "deep"], Access::Read);
        check(&token, "COPY", "/dav/a", Some("/dav/b"), Reason::ReadOnlyScope);
        token.scope = scope(&["secret", "deep"], Access::Full);
        check(&token, "COPY", "/dav/a", Some("/dav/b"), Reason::Ok);
        check(&token, "DELETE", "/dav/", None, Reason::Ok);
    }

    #[test]
    fn public_rule_does_not_open_what_is_below() {
        let token = fixture().token();
        let check = |path: &str, credential: Credential, expected: Reason| {
            assert_eq!(reason(&token, credential, "DELETE", path, None), expected, "{path}");
        };
        check("/dav/b", Credential::Missing, Reason::OkAnonymous);
        check("/dav/a", Credential::Missing, Reason::MissingCredentials);
        check("/dav/a", SENT, Reason::ScopeDenied);
    }

    #[test]
    fn what_is_below_is_that_of_every_host_and_keeps_its_methods() {
        let on_disk =
            |key: &str, path: &str| ServiceSpec { upstream: "disk".into(), ..service(key, &[path]) };
        let vhost = ServiceSpec { hosts: vec!["other.example".to_owned()], ..on_disk("vhost", "/dav/v/x") };
        let fixed = ServiceSpec { methods: Some(vec![Method::GET]), ..on_disk("fixed", "/dav/f/x") };
        let services = vec![on_disk("files", "/dav"), on_disk("secret", "/dav/a/x"), vhost, fixed];
        let fixture = Fixture::of(services, Vec::new());
        let scope = ["files", "fixed"].map(|key| fixture.rules.service_by_key(key).unwrap().id);
        let scope = Scope::new(scope.map(|id| (id, Access::Full))).unwrap();
        let token = Token { scope, ..fixture.token() };
        let check = |name: &str, (method, path): (Method, &str), over: bool, stated: &[&str], expected| {
            let query = Query {
                method: &method,
                host: Some("gate.example"),
                path: RequestPath::parse(path),
                token_in_url: false,
                credential: SENT,
                client: [192, 0, 2, 1].into(),
                upgrade: false,
                method_override: over,
                destination: None,
                stated_hosts: &stated.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>(),
            };
            let decided = decide(&query, Facts { token: Some(&token), ..fixture.facts() });
            let reason = decided.map_or_else(|denial| denial.reason, |permit| permit.reason());
            assert_eq!(reason, expected, "{name}");
        };
        let post = (Method::POST, "/dav/a");
        check("a method for the path alone", post.clone(), false, &[], Reason::Ok);
        check("one that the upstream may replace", post, true, &[], Reason::ScopeDenied);
        let delete = (Method::DELETE, "/dav/v");
        check("a service of another host", delete.clone(), false, &[], Reason::Ok);
        check("that a proxy names, too", delete, false, &["other.example"], Reason::ScopeDenied);
        check("one that takes no DELETE", (Method::DELETE, "/dav/f"), false, &[], Reason::MethodNotAllowed);
    }
}
