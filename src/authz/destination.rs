//! WebDAV's `Destination` (RFC 4918, 10.3): the second target of a request, judged like the first.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::authz::{
    host::Authority,
    path::{PathError, RequestPath},
    secret,
};

/// The target of a request's `Destination` field.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Path and query in origin form. `None` if it cannot be judged, for example on another host.
    target: Option<HeaderValue>,
    has_token: bool,
}

impl Destination {
    /// Reads the `Destination` of a request; `None` if there is no such field. `host` is the request's own,
    /// with its port, as the client sent it.
    pub fn from_headers(headers: &HeaderMap, host: Option<&[u8]>) -> Option<Self> {
        let disguised = headers.keys().any(|name| is_destination_alias(name.as_str().as_bytes()));
        let mut values = headers.get_all(NAME).iter().map(HeaderValue::as_bytes);
        let Some(value) = values.next() else {
            return disguised.then_some(Self { target: None, has_token: false });
        };
        let target = if disguised || values.next().is_some() { None } else { to_origin_form(value, host) };
        let contains_token =
            |value: &HeaderValue| secret::contains_token(&String::from_utf8_lossy(value.as_bytes()));
        let has_token = headers.get_all(NAME).iter().any(contains_token);
        Some(Self { target: target.and_then(|target| HeaderValue::from_str(target).ok()), has_token })
    }

    /// Path and query in origin form, as the upstream gets them; `None` if it cannot be judged.
    pub fn target(&self) -> Option<&HeaderValue> {
        self.target.as_ref()
    }

    /// The path of the destination; `None` if there is no [`target`](Self::target).
    pub fn path(&self) -> Option<Result<RequestPath<'_>, PathError>> {
        let target = self.target.as_ref()?.to_str().ok()?;
        Some(RequestPath::parse(target.split('?').next().unwrap_or_default()))
    }

    /// Whether it contains a permgate token.
    pub fn has_token(&self) -> bool {
        self.has_token
    }
}

pub const NAME: HeaderName = HeaderName::from_static(FIELD);

const FIELD: &str = "destination";

/// Whether this is another spelling of the name, which a server behind the gateway may take for the field.
fn is_destination_alias(name: &[u8]) -> bool {
    name.len() > FIELD.len()
        && (name[0] == b'd' || !name[0].is_ascii_alphanumeric())
        && name.iter().filter(|byte| byte.is_ascii_alphanumeric()).eq(FIELD.as_bytes())
}

/// Returns the origin form of an absolute path, or of an absolute URI on the request's own host. `None` for a
/// relative path, another host and `//host/path`.
fn to_origin_form<'v>(value: &'v [u8], host: Option<&[u8]>) -> Option<&'v str> {
    let value = str::from_utf8(value).ok()?.trim_ascii();
    let target = match value.split_once("://") {
        Some((scheme, rest)) if !scheme.contains('/') => {
            let default = if scheme.eq_ignore_ascii_case("http") {
                80
            } else if scheme.eq_ignore_ascii_case("https") {
                443
            } else {
                return None;
            };
            let (authority, target) = rest.split_at(rest.find('/')?);
            let (ours, named) = (Authority::parse(host?)?, Authority::parse(authority.as_bytes())?);
            Some(target).filter(|_| named.is_same(&ours, default))?
        }
        _ => value,
    };
    let visible = target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    (target.starts_with('/') && !target.starts_with("//") && visible).then_some(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination(host: Option<&str>, fields: &[(&str, &str)]) -> Option<Destination> {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap());
        }
        Destination::from_headers(&map, host.map(str::as_bytes))
    }

    #[test]
    fn it_is_a_path_on_the_same_host() {
        let check = |host: Option<&str>, value: &str, expected: Option<&str>| {
            let found = destination(host, &[("destination", value)]).expect("the field is there");
            let target = found.target().map(|target| target.to_str().unwrap().to_owned());
            assert_eq!(target.as_deref(), expected, "{host:?} {value}");
            assert!(!found.has_token());
        };
        let gate = Some("gate.example");
        check(gate, "/a/b%20c?d", Some("/a/b%20c?d"));
        check(gate, " /a ", Some("/a"));
        check(gate, "/a?u=http://x/", Some("/a?u=http://x/"));
        check(gate, "http://gate.example/a", Some("/a"));
        check(gate, "HTTPS://Gate.Example./a", Some("/a"));
        check(gate, "https://gate.example:443/a", Some("/a"));
        check(Some("gate.example:443"), "https://gate.example/a", Some("/a"));
        check(Some("gate:8443"), "https://gate:8443/a", Some("/a"));
        check(Some("[::1]:80"), "http://[0::1]/a", Some("/a"));
        check(None, "/a", Some("/a"));
        for value in [
            "",
            "*",
            "a/b",
            "../b",
            "//gate.example/a",
            "http://gate.example",
            "http://gate.example?/a",
            "http://gate.example//a",
            "http://other.example/a",
            "http://gate.example:8080/a",
            "https://gate.example:80/a",
            "http://gate.example@other.example/a",
            "http://user@gate.example/a",
            "http:/gate.example/a",
            "http:///a",
            "ftp://gate.example/a",
            "/a#b",
            "/a b",
            "/a, /b",
            "<http://gate.example/a>",
            "/\u{e9}",
        ] {
            check(gate, value, None);
        }
        check(None, "http://gate.example/a", None);
    }

    #[test]
    fn it_is_there_once_under_its_own_name() {
        let a = ("destination", "/a");
        assert!(destination(None, &[]).is_none());
        assert!(destination(None, &[("destinations", "/a"), ("x-destination", "/a")]).is_none());
        for fields in [[a, a], [a, ("destination", "/b")], [a, ("destination_", "/b")]] {
            assert!(destination(None, &fields).unwrap().target().is_none(), "{fields:?}");
        }
        for name in ["destination_", "_destination", "des.tination", "des_ti.nation", "destination-"] {
            assert!(destination(None, &[(name, "/a")]).unwrap().target().is_none(), "{name}");
        }
    }

    #[test]
    fn a_token_in_it_is_seen_wherever_it_stands() {
        let token = "pgt_A1iceYt00001_fAP2l3cGjaBAHokSsW17RyEusf3hEGifhgPiofGdOYe1Q6rwW";
        for value in [format!("/a/{token}"), format!("/a?t={token}"), format!("relative/{token}")] {
            assert!(destination(None, &[("destination", &value)]).unwrap().has_token(), "{value}");
        }
    }
}
