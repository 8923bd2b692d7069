//! The table of keys and the types that read values agree.

use strum::VariantNames as _;

use super::{
    super::{
        key::{Key, ValueKind, schema},
        units,
    },
    every_key,
};
use crate::{
    assertion::Algorithm,
    authz::{
        forwarding::PassFrom,
        rules::{Allowance, Identity},
    },
    settings::{Balance, FrontProxy, HttpVersion, LimitKey, MAX_EXCHANGED_LIFETIME},
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

#[test]
fn every_maximum_is_of_its_kind() {
    for (path, key) in every_key() {
        let Some(max) = key.max else { continue };
        match key.kind {
            ValueKind::Duration(least) => {
                assert!(units::duration(max).unwrap().as_millis() > least.into(), "{path}");
            }
            ValueKind::Size(least) => assert!(units::size(max).unwrap() > least, "{path}"),
            kind => panic!("{path}: {kind:?} has no maximum"),
        }
    }
    let schema = schema();
    let head = schema.pointer("/properties/server/properties/limits/properties/head").unwrap();
    assert_eq!(head["anyOf"][0]["maximum"], 1 << 20, "{head}");
    let lifetime = schema.pointer("/properties/assertion/properties/lifetime/description").unwrap();
    assert_eq!(lifetime, "How long an assertion is valid. At most 30s.");
    let of_key = |(path, key): (String, &Key)| (path == "exchange.lifetime").then_some(key.max?);
    let longest = every_key().into_iter().find_map(of_key).and_then(units::duration);
    assert_eq!(longest, Some(MAX_EXCHANGED_LIFETIME));
}
