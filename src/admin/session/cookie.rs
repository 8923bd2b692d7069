//! The one cookie: what it is called, how it is found and how it is set.

use http::{HeaderMap, HeaderValue, header};

use super::secret::Secret;
use crate::{authz::cookies, store::ABSOLUTE};

/// What the browser sent; nothing when there are several, since nobody knows who set which.
pub(in crate::admin) fn read(headers: &HeaderMap, secure: bool) -> Option<Secret> {
    let wanted = name(secure);
    let fields = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = fields.flat_map(|field| field.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut values = pairs.filter(|(name, _)| *name == wanted).map(|(_, value)| value);
    match (values.next(), values.next()) {
        (Some(value), None) => Secret::parse(value),
        _ => None,
    }
}

pub(in crate::admin) fn set(secret: &Secret, secure: bool) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(written(secret.expose(), secure, ABSOLUTE)).ok()?;
    value.set_sensitive(true);
    Some(value)
}

pub(in crate::admin) fn clear(secure: bool) -> Option<HeaderValue> {
    HeaderValue::try_from(written("", secure, 0)).ok()
}

fn written(value: &str, secure: bool, max_age: i64) -> String {
    let mark = if secure { "; Secure" } else { "" };
    format!("{}={value}; Path=/; Max-Age={max_age}; HttpOnly; SameSite=Strict{mark}", name(secure))
}

fn name(secure: bool) -> &'static str {
    let [bound, plain] = cookies::SESSION;
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
        let value = |secure| set(&secret, secure).unwrap().to_str().unwrap().to_owned();
        let text = "a".repeat(64);
        let attributes = "Path=/; Max-Age=43200; HttpOnly; SameSite=Strict";
        assert_eq!(value(false), format!("permgate={text}; {attributes}"));
        assert_eq!(value(true), format!("__Host-permgate={text}; {attributes}; Secure"));
        assert_eq!(clear(false).unwrap(), "permgate=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict");
    }
}
