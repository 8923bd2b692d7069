//! Each owner's tokens, in memory. They are derived from the rows when those are loaded.

use std::collections::HashMap;

use crate::{
    authz::{secret::TokenId, time::Timestamp},
    store::record::TokenHead,
};

/// How many tokens an owner has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub all: usize,
    /// Tokens that were revoked or replaced.
    pub ended: usize,
}

/// One owner's tokens.
#[derive(Default)]
pub(super) struct OwnerTokens {
    /// Sorted after [`OwnerTokens::finish_load`].
    pub ids: Vec<TokenId>,
    ended: usize,
    /// Replaced tokens, and until when they still work.
    grace: Vec<(TokenId, Timestamp)>,
}

/// Tokens that a batch adds, removes or ends.
#[derive(Default)]
pub(super) struct OwnerTokensChange {
    pub added: Vec<TokenId>,
    removed: Vec<TokenId>,
    ended: isize,
    grace: Vec<(TokenId, Option<Timestamp>)>,
}

impl OwnerTokens {
    pub(super) fn counts(&self) -> Counts {
        Counts { all: self.ids.len(), ended: self.ended }
    }

    /// Up to `limit` ids after `after`.
    pub(super) fn page(&self, after: Option<TokenId>, limit: usize) -> &[TokenId] {
        let from = after.map_or(0, |after| self.ids.partition_point(|id| *id <= after));
        let behind = &self.ids[from..];
        &behind[..behind.len().min(limit)]
    }

    pub(super) fn contains(&self, id: TokenId) -> bool {
        self.ids.binary_search(&id).is_ok()
    }

    /// Adds a token. [`OwnerTokens::finish_load`] must follow.
    pub(super) fn load(&mut self, token: &TokenHead<'_>) {
        self.ids.push(token.id);
        self.ended += usize::from(token.is_ended());
        self.grace.extend(token.grace_until().map(|until| (token.id, until)));
    }

    pub(super) fn finish_load(&mut self) {
        self.ids.sort_unstable();
        self.ids.shrink_to_fit();
    }
}

impl OwnerTokensChange {
    /// Records that a token changes. Its id and owner stay the same.
    pub(super) fn record(
        owners: &mut HashMap<String, Self>,
        before: Option<&TokenHead<'_>>,
        after: Option<&TokenHead<'_>>,
    ) {
        let Some(token) = after.or(before) else { return };
        if !owners.contains_key(token.owner) {
            owners.insert(token.owner.to_owned(), Self::default());
        }
        let Some(change) = owners.get_mut(token.owner) else { return };
        match (before, after) {
            (None, _) => change.added.push(token.id),
            (_, None) => match change.added.iter().position(|id| *id == token.id) {
                Some(at) => drop(change.added.swap_remove(at)),
                None => change.removed.push(token.id),
            },
            _ => {}
        }
        let grace = |token: Option<&TokenHead<'_>>| token.and_then(TokenHead::grace_until);
        if grace(before) != grace(after) {
            change.grace.retain(|(id, _)| *id != token.id);
            change.grace.push((token.id, grace(after)));
        }
        let ended = |token: Option<&TokenHead<'_>>| isize::from(token.is_some_and(TokenHead::is_ended));
        change.ended += ended(after) - ended(before);
    }

    pub(super) fn apply(&self, owner_tokens: &mut OwnerTokens) {
        if !self.removed.is_empty() {
            let mut removed = self.removed.clone();
            removed.sort_unstable();
            owner_tokens.ids.retain(|id| removed.binary_search(id).is_err());
        }
        if let [id] = self.added[..] {
            let at = owner_tokens.ids.partition_point(|other| *other < id);
            owner_tokens.ids.insert(at, id);
        } else if !self.added.is_empty() {
            let mut added = self.added.clone();
            added.sort_unstable();
            owner_tokens.ids.append(&mut added);
            // A stable sort merges two sorted runs.
            owner_tokens.ids.sort();
        }
        owner_tokens.ended = owner_tokens.ended.saturating_add_signed(self.ended);
        for (id, until) in &self.grace {
            owner_tokens.grace.retain(|(other, _)| other != id);
            owner_tokens.grace.extend(until.map(|until| (*id, until)));
        }
    }
}

/// An owner's counts once a batch is written.
pub(super) fn counts(owner_tokens: Option<&OwnerTokens>, change: Option<&OwnerTokensChange>) -> Counts {
    let Counts { all, ended } = owner_tokens.map(OwnerTokens::counts).unwrap_or_default();
    let Some(change) = change else { return Counts { all, ended } };
    let all = (all + change.added.len()).saturating_sub(change.removed.len());
    Counts { all, ended: ended.saturating_add_signed(change.ended) }
}

/// How many of an owner's tokens were replaced and still work, once a batch is written.
pub(super) fn in_grace(
    owner_tokens: Option<&OwnerTokens>,
    change: Option<&OwnerTokensChange>,
    now: Timestamp,
) -> usize {
    let stored = owner_tokens.map(|owner_tokens| owner_tokens.grace.as_slice()).unwrap_or_default();
    let changed = change.map(|change| change.grace.as_slice()).unwrap_or_default();
    let stands = |id: &TokenId| changed.iter().all(|(other, _)| other != id);
    stored.iter().filter(|(id, until)| *until > now && stands(id)).count()
        + changed.iter().filter(|(_, until)| until.is_some_and(|until| until > now)).count()
}
