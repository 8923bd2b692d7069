//! The session cookie, and the cookie of a browser that an account has signed in with: their names, how they
//! are read and how they are set.

use http::{HeaderMap, HeaderValue, header};

use super::secret::{Csrf, Secret};
use crate::{authz::cookies, store::ABSOLUTE};

/// How long a browser stays known, in seconds: 90 days.
const KNOWN_FOR: i64 = 90 * 24 * 3600;

/// The session's secret; `None` if the cookie is missing, or sent twice, as its origin is then unclear.
pub(in crate::admin) fn read(headers: &HeaderMap, secure: bool) -> Option<Secret> {
    Secret::parse(sent(headers, cookies::SESSION, secure)?)
}

/// The value of a cookie, if exactly one was sent.
pub(in crate::admin) fn sent<'a>(
    headers: &'a HeaderMap,
    names: [&'static str; 2],
    secure: bool,
) -> Option<&'a str> {
    let wanted = name(names, secure);
    let fields = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = fields.flat_map(|field| field.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut values = pairs.filter(|(name, _)| *name == wanted).map(|(_, value)| value);
    match (values.next(), values.next()) {
        (Some(value), None) => Some(value),
        _ => None,
    }
}

/// Whether the account that `proof` belongs to has signed in with this browser before.
pub(in crate::admin) fn is_known(headers: &HeaderMap, secure: bool, proof: &Csrf) -> bool {
    sent(headers, cookies::KNOWN, secure).is_some_and(|sent| proof.matches(sent.as_bytes()))
}

pub(in crate::admin) fn make_known(proof: &Csrf, secure: bool) -> HeaderValue {
    written(cookies::KNOWN, &proof.text(), KNOWN_FOR, "Strict", secure)
}

pub(in crate::admin) fn set(secret: &Secret, secure: bool) -> HeaderValue {
    written(cookies::SESSION, secret.expose(), ABSOLUTE, "Strict", secure)
}

pub(in crate::admin) fn clear(secure: bool) -> HeaderValue {
    written(cookies::SESSION, "", 0, "Strict", secure)
}

/// A `Set-Cookie` value; `max_age` in seconds.
pub(in crate::admin) fn written(
    names: [&'static str; 2],
    value: &str,
    max_age: i64,
    same_site: &str,
    secure: bool,
) -> HeaderValue {
    let (name, mark) = (name(names, secure), if secure { "; Secure" } else { "" });
    let text = format!("{name}={value}; Path=/; Max-Age={max_age}; HttpOnly; SameSite={same_site}{mark}");
    let mut value = HeaderValue::try_from(text).expect("every value is hexadecimal or Base64");
    value.set_sensitive(max_age > 0);
    value
}

fn name([bound, plain]: [&'static str; 2], secure: bool) -> &'static str {
    if secure { bound } else { plain }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_when_it_is_the_only_one_of_its_name() {
        let (one, other) = ("1".repeat(64), "2".repeat(64));
        let check = |name: &str, fields: &[String], secure: bool, expected: Option<&str>| {
            let value = |field: &String| (header::COOKIE, HeaderValue::try_from(field.as_str()).unwrap());
            let headers: HeaderMap = fields.iter().map(value).collect();
            let found = read(&headers, secure);
            assert_eq!(found.as_ref().map(Secret::expose), expected, "{name}");
        };
        check("none", &[], false, None);
        check("alone", &[format!("permgate={one}")], false, Some(&one));
        check("among others", &[format!("a=b; permgate={one};c=d")], false, Some(&one));
        check("in another field", &["a=b".to_owned(), format!("permgate={one}")], false, Some(&one));
        check("twice", &[format!("permgate={one}; permgate={other}")], false, None);
        check("twice, in two fields", &[format!("permgate={one}"), format!("permgate={one}")], false, None);
        check("of another form", &["permgate=x".to_owned()], false, None);
        check("the plain one with TLS", &[format!("permgate={one}")], true, None);
        check(
            "the bound one with TLS",
            &[format!("__Host-permgate={one}; permgate={other}")],
            true,
            Some(&one),
        );
        check("the bound one without", &[format!("__Host-permgate={one}")], false, None);
    }

    #[test]
    fn its_attributes() {
        let secret = Secret::parse(&"a".repeat(64)).unwrap();
        let value = |secure| set(&secret, secure).to_str().unwrap().to_owned();
        let text = "a".repeat(64);
        let attributes = "Path=/; Max-Age=43200; HttpOnly; SameSite=Strict";
        assert_eq!(value(false), format!("permgate={text}; {attributes}"));
        assert_eq!(value(true), format!("__Host-permgate={text}; {attributes}; Secure"));
        assert_eq!(clear(false), "permgate=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict");
    }
}
