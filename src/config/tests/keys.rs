//! The table of keys and the types that read values agree.

use strum::VariantNames as _;

use super::{super::key::ValueKind, every_key};
use crate::{
    assertion::Algorithm,
    authz::{
        forwarding::PassFrom,
        rules::{Allowance, Identity},
    },
    settings::{Balance, FrontProxy, HttpVersion, LimitKey},
};

#[test]
fn words_are_those_that_their_types_read() {
    let every_key = every_key();
    let check = |path: &str, expected: &[&str]| {
        let (_, key) = every_key.iter().find(|(name, _)| name == path).unwrap();
        let (ValueKind::Word(words) | ValueKind::Words(words)) = key.kind else { panic!("{path}") };
        assert_eq!(words, expected, "{path}");
    };
    check("assertion.algorithm", Algorithm::VARIANTS);
    check("forward_auth.proxy", FrontProxy::VARIANTS);
    check("limits.per", LimitKey::VARIANTS);
    check("service.allow", Allowance::VARIANTS);
    check("service.identity", Identity::VARIANTS);
    check("service.pass_fields.from", PassFrom::VARIANTS);
    check("upstream.balance", Balance::VARIANTS);
    check("upstream.http", HttpVersion::VARIANTS);
}
