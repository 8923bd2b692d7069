//! What is listed of one owner's tokens.

use super::{Entry, EntryChange, Name, OwnerTokensChange};
use crate::authz::{secret::TokenId, time::Timestamp};

/// One owner's tokens. Each is in one of the first two lists, which are sorted.
#[derive(Default)]
pub(super) struct OwnerTokens {
    pub names: Vec<Name>,
    /// Tokens that no name leads to.
    pub unnamed: Vec<TokenId>,
    pub ended: usize,
    /// Replaced tokens, and until when they still work.
    pub grace: Vec<(TokenId, Timestamp)>,
}

impl OwnerTokens {
    /// In no order.
    pub fn ids(&self) -> impl Iterator<Item = TokenId> {
        self.names.iter().map(|name| name.id).chain(self.unnamed.iter().copied())
    }

    pub fn len(&self) -> usize {
        self.names.len() + self.unnamed.len()
    }

    pub fn apply(&mut self, changed: &OwnerTokensChange) {
        let entries = || changed.iter().map(|(id, EntryChange { before, after })| (*id, *before, *after));
        let unnamed = |entry: Option<Entry>| entry.is_some_and(|entry| entry.name.is_none());
        let removed = entries().filter(|(_, before, after)| unnamed(*before) && !unnamed(*after));
        let added = entries().filter(|(_, before, after)| !unnamed(*before) && unnamed(*after));
        edit(&mut self.unnamed, removed.map(|(id, ..)| id).collect(), added.map(|(id, ..)| id).collect());

        let name = |entry: Option<Entry>| entry.and_then(|entry| entry.name);
        let renamed = || entries().filter(|(_, before, after)| name(*before) != name(*after));
        let removed = renamed().filter_map(|(_, before, _)| name(before));
        let added = renamed().filter_map(|(_, _, after)| name(after));
        edit(&mut self.names, removed.collect(), added.collect());

        self.ended = self.ended.saturating_add_signed(difference(changed, is_ended));
        let in_grace = |entry: Option<Entry>| entry.and_then(|entry| entry.grace_until);
        for (id, _, after) in entries().filter(|(_, before, after)| in_grace(*before) != in_grace(*after)) {
            self.grace.retain(|(other, _)| *other != id);
            self.grace.extend(in_grace(after).map(|until| (id, until)));
        }
    }
}

pub(super) fn is_ended(entry: &Option<Entry>) -> isize {
    isize::from(entry.is_some_and(|entry| entry.ended))
}

/// How a sum over an owner's tokens changes.
pub(super) fn difference(changed: &OwnerTokensChange, of: impl Fn(&Option<Entry>) -> isize) -> isize {
    changed.values().map(|EntryChange { before, after }| of(after) - of(before)).sum()
}

/// Removes from a sorted list and adds to it.
fn edit<T: Ord>(list: &mut Vec<T>, mut removed: Vec<T>, mut added: Vec<T>) {
    removed.sort_unstable();
    match &removed[..] {
        [] => {}
        [one] => drop(list.binary_search(one).map(|at| list.remove(at))),
        _ => list.retain(|one| removed.binary_search(one).is_err()),
    }
    added.sort_unstable();
    if added.len() == 1 {
        let at = list.partition_point(|other| *other < added[0]);
        list.splice(at..at, added);
    } else if !added.is_empty() {
        list.append(&mut added);
        // A stable sort merges two sorted runs.
        list.sort();
    }
}
