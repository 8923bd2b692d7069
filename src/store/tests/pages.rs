//! Pages and slices of tokens.

use super::*;

#[tokio::test]
async fn slices_of_tokens_pass_over_what_is_gone() {
    let bench = Bench::peopled().await;
    let mut there = Vec::new();
    for at in 0..24 {
        let new = named("alice", &format!("a{at}"));
        let token = bench.store.create_token(operator(), new, None).await.unwrap().record;
        if at % 3 == 0 {
            there.push(token.id);
        } else {
            bench.store.revoke_token(operator(), token.id, RevokeReason::Admin).await.unwrap();
        }
    }
    there.sort();
    let owner = match bench.by("alice").kind {
        ActorKind::User(id) => id,
        ActorKind::Operator => unreachable!(),
    };
    for skip in 0..10 {
        for top in 0..10 {
            let slice = bench.store.slice_of_tokens(&owner, skip, top).unwrap();
            let ids: Vec<_> = slice.items.iter().map(|record| record.id).collect();
            let expected: Vec<_> = there.iter().copied().skip(skip).take(top).collect();
            assert_eq!((ids, slice.total), (expected, there.len()), "{skip} {top}");
        }
    }
    for id in [there[0], *there.last().unwrap()] {
        bench.store.rotate_token(operator(), id, None, None).await.unwrap();
    }
    let all = bench.store.slice_of_tokens(&owner, 0, 100).unwrap();
    assert_eq!((all.items.len(), all.total), (10, 10), "a token in its grace is there still");
    for skip in 0..10 {
        let slice = bench.store.slice_of_tokens(&owner, skip, 1).unwrap();
        assert_eq!((slice.items.len(), slice.total), (1, 10), "also one behind the slice, at {skip}");
    }
    bench.pass(3600);
    let all = bench.store.slice_of_tokens(&owner, 0, 100).unwrap();
    assert_eq!((all.items.len(), all.total), (8, 8));
    let short = expiring("alice", "short", bench.now().plus_seconds(60));
    let short = bench.store.create_token(operator(), short, None).await.unwrap().record.id;
    bench.store.rotate_token(operator(), short, None, None).await.unwrap();
    bench.pass(60);
    for (skip, top) in [(0, 100), (0, 1), (8, 1)] {
        let total = bench.store.slice_of_tokens(&owner, skip, top).unwrap().total;
        assert_eq!(total, 9, "the grace has ended with the token, its successor has only expired");
    }
    assert_eq!(bench.store.slice_of_tokens("nobody", 0, 100).unwrap().total, 0);
}

#[tokio::test]
async fn pages_of_tokens() {
    let bench = Bench::peopled().await;
    for at in 0..7 {
        bench.store.create_token(operator(), named("alice", &format!("a{at}")), None).await.unwrap();
    }
    let other = bench.store.create_token(operator(), named("bob", "b"), None).await.unwrap().record;
    bench.store.revoke_token(operator(), other.id, RevokeReason::Admin).await.unwrap();
    let check = |name: &str, filter: TokenFilter, expected: usize| {
        let (mut seen, mut cursor) = (Vec::new(), None);
        loop {
            let page = bench.store.tokens(&filter, cursor.as_deref(), 3).unwrap();
            assert!(page.items.len() <= 3);
            seen.extend(page.items.into_iter().map(|record| record.id));
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        assert!(seen.is_sorted(), "{name}");
        assert_eq!(seen.len(), expected, "{name}");
    };
    check("all", TokenFilter::default(), 8);
    check("alice's", TokenFilter { owner: Some("Alice".into()), ..TokenFilter::default() }, 7);
    check("nobody's", TokenFilter { owner: Some("nobody".into()), ..TokenFilter::default() }, 0);
    check("revoked", TokenFilter { state: Some(TokenState::Revoked), ..TokenFilter::default() }, 1);
    check("of a service", TokenFilter { service: Some("hub".into()), ..TokenFilter::default() }, 0);
    check("never used", TokenFilter { unused_since: Some(bench.now()), ..TokenFilter::default() }, 8);
    assert!(bench.store.tokens(&TokenFilter::default(), Some("no cursor"), 3).is_err());
    for (name, seconds) in [("soon", 60), ("later", 3600)] {
        let new = expiring("alice", name, bench.now().plus_seconds(seconds));
        bench.store.create_token(operator(), new, None).await.unwrap();
    }
    let day =
        TokenFilter { expiring_before: Some(bench.now().plus_seconds(86_400)), ..TokenFilter::default() };
    check("within a day", day.clone(), 2);
    bench.pass(60);
    check("those that have expired are past it", day, 1);
}
