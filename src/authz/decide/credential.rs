//! The credential in the `Authorization` fields of a request, parsed before any look-up.

use http::{HeaderMap, HeaderValue, header};

use crate::authz::{
    carriers::CarrierKind,
    forwarding::{Repeated, at_most_one, is_token_char},
    secret::{Bearer, BearerForm, Digest, has_alias},
};

/// The credential of a request, from its `Authorization` fields or another carrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential {
    /// No field at all.
    Missing,
    /// A scheme other than `Bearer`.
    UnsupportedScheme,
    /// Two or more fields.
    Ambiguous,
    /// `Bearer` not followed by exactly one word of `token68`, or by one of more than 512 characters.
    Malformed,
    /// One word. The digest is that of the canonical text; `None` if the form alone rules out a valid token.
    Bearer { form: BearerForm, digest: Option<Digest> },
    /// The same in another carrier, which the service accepts.
    Carried { kind: CarrierKind, form: BearerForm, digest: Option<Digest> },
    /// A carrier that the service accepts was sent twice or in a folded spelling, or two of them differ.
    AmbiguousCarrier,
    /// A carrier that the service accepts does not hold one word.
    MalformedCarrier,
    /// In a carrier that this service does not accept but another one on the same host does. It is
    /// authenticated like any other, so that the response does not reveal the service to a stranger, but
    /// permits nothing.
    Elsewhere { form: BearerForm, digest: Option<Digest> },
}

impl Credential {
    /// Parses the `Authorization` fields. The digest is computed only if a look-up follows: for permgate's
    /// own form, and for a foreign one if there are `imports`.
    pub fn from_headers(headers: &HeaderMap, perm_alias: bool, imports: bool) -> Self {
        match at_most_one(headers, header::AUTHORIZATION) {
            Ok(None) => Credential::Missing,
            Ok(Some(field)) => Self::from_field(field.as_bytes(), perm_alias, imports),
            Err(Repeated) => Credential::Ambiguous,
        }
    }

    /// Whether the token in `Authorization` may follow a `perm:` or `perm-` alias.
    pub fn may_have_alias(headers: &HeaderMap) -> bool {
        let word =
            |value: &HeaderValue| value.as_bytes().rsplit(|byte| *byte == b' ').next().is_some_and(has_alias);
        headers.get(header::AUTHORIZATION).is_some_and(word)
    }

    /// Parses one field value.
    pub fn from_field(field: &[u8], perm_alias: bool, imports: bool) -> Self {
        // The usual spelling.
        let usual = field.strip_prefix(b"Bearer ").filter(|word| word.first() != Some(&b' '));
        let word = match usual {
            Some(word) => Some(word),
            None => match strip_bearer_scheme(field) {
                Some(rest) => {
                    let spaces = rest.iter().take_while(|b| **b == b' ').count();
                    Some(&rest[spaces..]).filter(|_| spaces > 0)
                }
                None => return Credential::UnsupportedScheme,
            },
        };
        let Some(bearer) = word.and_then(Bearer::parse) else { return Credential::Malformed };
        let (form, digest) = Self::of(bearer, perm_alias, imports);
        Credential::Bearer { form, digest }
    }

    /// The form of a text, and its digest if a look-up follows.
    pub(in crate::authz) fn of(
        bearer: Bearer<'_>,
        perm_alias: bool,
        imports: bool,
    ) -> (BearerForm, Option<Digest>) {
        let (bearer, form) = bearer.classify(perm_alias);
        let looked_up = match form {
            BearerForm::Own => true,
            BearerForm::Foreign => imports,
            BearerForm::ChecksumMismatch => false,
        };
        (form, looked_up.then(|| bearer.digest()))
    }

    /// A credential that matches no token.
    pub(in crate::authz) fn foreign(kind: CarrierKind) -> Self {
        Credential::Carried { kind, form: BearerForm::Foreign, digest: None }
    }

    /// The key for the look-up in the token index.
    pub fn digest(&self) -> Option<&Digest> {
        match self {
            Credential::Bearer { digest, .. }
            | Credential::Carried { digest, .. }
            | Credential::Elsewhere { digest, .. } => digest.as_ref(),
            _ => None,
        }
    }

    /// Whether nothing was sent that could hold a token.
    pub fn is_absent(&self) -> bool {
        matches!(self, Credential::Missing | Credential::UnsupportedScheme)
    }

    /// The carrier that holds the credential, if not `Authorization: Bearer`.
    pub fn kind(&self) -> Option<CarrierKind> {
        match self {
            Credential::Carried { kind, .. } => Some(*kind),
            _ => None,
        }
    }
}

/// Returns what follows `Bearer` in any letter case; `None` for another scheme.
fn strip_bearer_scheme(field: &[u8]) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer";
    let (scheme, rest) = field.split_at_checked(SCHEME.len())?;
    let whole = !rest.first().is_some_and(is_token_char);
    (whole && scheme.eq_ignore_ascii_case(SCHEME)).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_field_of_one_scheme_and_one_word() {
        let check = |field: &str, expected: Credential| {
            assert_eq!(Credential::from_field(field.as_bytes(), true, false), expected, "{field:?}");
        };
        let foreign = Credential::Bearer { form: BearerForm::Foreign, digest: None };
        check("", Credential::UnsupportedScheme);
        check("Basic YTpi", Credential::UnsupportedScheme);
        check("Bearerx y", Credential::UnsupportedScheme);
        check("Bearer", Credential::Malformed);
        check("Bearer ", Credential::Malformed);
        check("Bearer\tx", Credential::Malformed);
        check("Bearer \tx", Credential::Malformed);
        check("bearer \tx", Credential::Malformed);
        check("Bearer=x", Credential::Malformed);
        check("Bearer x y", Credential::Malformed);
        check("Bearer x, Bearer y", Credential::Malformed);
        check("Bearer é", Credential::Malformed);
        check("bEARER   x", foreign);
        check(&format!("Bearer {}", "a".repeat(512)), foreign);
        check(&format!("Bearer {}", "a".repeat(513)), Credential::Malformed);
        assert_eq!(Credential::from_field(b"Bearer \xff", true, true), Credential::Malformed);
    }

    #[test]
    fn a_foreign_word_is_digested_only_for_imports() {
        let digest = |imports: bool| Credential::from_field(b"Bearer x", true, imports).digest().copied();
        assert_eq!((digest(false), digest(true).is_some()), (None, true));
    }
}
