//! Finds tokens by id, by owner and by name. These lists are not in sled, where they would take two more rows
//! for each token: they are derived from the tokens' rows when those are loaded.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasher as _, RandomState},
    ops::Bound,
    sync::LazyLock,
};

use super::ReplicaError;
use crate::{
    authz::{
        accounts::fold,
        secret::{Digest, TokenId},
        time::Timestamp,
    },
    store::record::TokenHead,
};

/// How many tokens an owner has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub all: usize,
    /// Tokens that were revoked or replaced.
    pub ended: usize,
}

#[derive(Default)]
pub(super) struct TokenLists {
    /// As they were loaded, sorted: a tree would take half as much memory again.
    loaded: Vec<(TokenId, Digest)>,
    /// What has changed since. `None`: a loaded token was dropped.
    changed: BTreeMap<TokenId, Option<Digest>>,
    owners: HashMap<String, OwnerTokens>,
}

/// One owner's tokens. The lists are sorted.
#[derive(Default)]
struct OwnerTokens {
    ids: Vec<TokenId>,
    /// Of tokens that have not ended.
    names: Vec<(NameHash, TokenId)>,
    /// Replaced tokens, and until when they still work.
    grace: Vec<(TokenId, Timestamp)>,
}

/// A hash of a folded name: short, so two names may share it. Its key differs in every process, so nobody can
/// choose names that do.
type NameHash = u32;

fn name_hash(folded: &str) -> NameHash {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    KEY.hash_one(folded) as NameHash
}

/// What the lists have of a token.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Entry {
    /// `None` if the token has ended.
    name: Option<NameHash>,
    grace_until: Option<Timestamp>,
}

impl Entry {
    fn of(token: &TokenHead<'_>) -> Self {
        let name = (!token.is_ended()).then(|| name_hash(&fold(token.name)));
        Self { name, grace_until: token.grace_until() }
    }
}

/// How a batch changes the lists.
#[derive(Default)]
pub(super) struct TokenListsChange {
    /// `None`: the token is dropped.
    digests: BTreeMap<TokenId, Option<Digest>>,
    owners: HashMap<String, OwnerTokensChange>,
}

type OwnerTokensChange = BTreeMap<TokenId, EntryChange>;

/// `None` stands for no token.
struct EntryChange {
    before: Option<Entry>,
    after: Option<Entry>,
}

impl TokenListsChange {
    /// Records that a token changes. Its id and owner stay the same.
    pub(super) fn record(
        &mut self,
        digest: &Digest,
        before: Option<&TokenHead<'_>>,
        after: Option<&TokenHead<'_>>,
    ) {
        let Some(token) = after.or(before) else { return };
        if before.is_none() || after.is_none() {
            self.digests.insert(token.id, after.map(|_| *digest));
        }
        let after = after.map(Entry::of);
        owned(&mut self.owners, token.owner)
            .entry(token.id)
            .and_modify(|change| change.after = after)
            .or_insert_with(|| EntryChange { before: before.map(Entry::of), after });
    }
}

impl TokenLists {
    /// For about so many tokens.
    pub(super) fn with_capacity(tokens: usize) -> Self {
        Self { loaded: Vec::with_capacity(tokens), ..Self::default() }
    }

    /// Loads a token. [`TokenLists::finish_load`] must follow.
    pub(super) fn load(&mut self, digest: Digest, token: &TokenHead<'_>) {
        self.loaded.push((token.id, digest));
        let Entry { name, grace_until } = Entry::of(token);
        let owner_tokens = owned(&mut self.owners, token.owner);
        owner_tokens.ids.push(token.id);
        owner_tokens.names.extend(name.map(|name| (name, token.id)));
        owner_tokens.grace.extend(grace_until.map(|until| (token.id, until)));
    }

    pub(super) fn finish_load(&mut self) -> Result<(), ReplicaError> {
        for owner_tokens in self.owners.values_mut() {
            owner_tokens.ids.sort_unstable();
            owner_tokens.ids.shrink_to_fit();
            owner_tokens.names.sort_unstable();
            owner_tokens.names.shrink_to_fit();
        }
        self.loaded.sort_unstable();
        if self.loaded.is_sorted_by(|a, b| a.0 < b.0) { Ok(()) } else { Err(ReplicaError::Ids) }
    }

    /// As a batch leaves it.
    pub(super) fn digest(&self, id: TokenId, change: &TokenListsChange) -> Option<Digest> {
        change.digests.get(&id).copied().unwrap_or_else(|| self.stored_digest(id))
    }

    fn stored_digest(&self, id: TokenId) -> Option<Digest> {
        self.changed.get(&id).copied().unwrap_or_else(|| self.loaded_digest(id))
    }

    fn loaded_digest(&self, id: TokenId) -> Option<Digest> {
        let at = self.loaded.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        Some(self.loaded[at].1)
    }

    /// Up to `limit` tokens after `after`, in the order of ids.
    pub(super) fn page(&self, after: Option<TokenId>, limit: usize) -> Vec<(TokenId, Digest)> {
        let from = after.map_or(0, |after| self.loaded.partition_point(|(id, _)| *id <= after));
        let loaded = self.loaded[from..].iter().copied().filter(|(id, _)| !self.changed.contains_key(id));
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let changed = self.changed.range((from, Bound::Unbounded));
        let changed = changed.filter_map(|(id, digest)| Some((*id, (*digest)?)));
        let mut tokens: Vec<_> = loaded.take(limit).chain(changed.take(limit)).collect();
        tokens.sort_unstable();
        tokens.truncate(limit);
        tokens
    }

    /// The same for one owner.
    pub(super) fn page_of(
        &self,
        owner: &str,
        after: Option<TokenId>,
        limit: usize,
    ) -> Vec<(TokenId, Digest)> {
        let Some(OwnerTokens { ids, .. }) = self.owners.get(owner) else { return Vec::new() };
        let from = after.map_or(0, |after| ids.partition_point(|id| *id <= after));
        ids[from..].iter().filter_map(|id| Some((*id, self.stored_digest(*id)?))).take(limit).collect()
    }

    /// All tokens of an owner.
    pub(super) fn digests_of(&self, owner: &str, change: &TokenListsChange) -> Vec<Digest> {
        let stored = self.of(owner, change).0.ids.iter().copied();
        self.digests(owner, stored, change, |_| true)
    }

    /// The owner's tokens that have not ended.
    pub(super) fn digests_of_unended(&self, owner: &str, change: &TokenListsChange) -> Vec<Digest> {
        let stored = self.of(owner, change).0.names.iter().map(|(_, id)| *id);
        self.digests(owner, stored, change, |entry| entry.name.is_some())
    }

    /// Those of them that may have the folded name.
    pub(super) fn digests_named(&self, owner: &str, name: &str, change: &TokenListsChange) -> Vec<Digest> {
        let (names, name) = (&self.of(owner, change).0.names, name_hash(name));
        let from = names.partition_point(|(other, _)| *other < name);
        let stored = names[from..].iter().take_while(|(other, _)| *other == name).map(|(_, id)| *id);
        self.digests(owner, stored, change, |entry| entry.name == Some(name))
    }

    /// Of the tokens `stored`, those that the batch does not change, and of those that it changes, the ones
    /// that `fits`.
    fn digests(
        &self,
        owner: &str,
        stored: impl Iterator<Item = TokenId>,
        change: &TokenListsChange,
        fits: impl Fn(&Entry) -> bool,
    ) -> Vec<Digest> {
        let changed = self.of(owner, change).1;
        let unchanged = stored.filter(|id| !changed.contains_key(id));
        let changed = changed.iter().filter(|(_, change)| change.after.as_ref().is_some_and(&fits));
        unchanged.chain(changed.map(|(id, _)| *id)).filter_map(|id| self.digest(id, change)).collect()
    }

    pub(super) fn counts(&self, owner: &str, change: &TokenListsChange) -> Counts {
        let (stored, changed) = self.of(owner, change);
        let mut counts = stored.counts();
        for EntryChange { before, after } in changed.values() {
            let count = |entry: &Option<Entry>| {
                (usize::from(entry.is_some()), usize::from(entry.is_some_and(|entry| entry.name.is_none())))
            };
            let ((all, ended), (all_after, ended_after)) = (count(before), count(after));
            counts.all = counts.all + all_after - all;
            counts.ended = counts.ended + ended_after - ended;
        }
        counts
    }

    /// The counts of all owners.
    pub(super) fn all_counts(&self) -> HashMap<String, Counts> {
        self.owners.iter().map(|(owner, owner_tokens)| (owner.clone(), owner_tokens.counts())).collect()
    }

    /// How many of an owner's tokens were replaced and still work.
    pub(super) fn in_grace(&self, owner: &str, now: Timestamp, change: &TokenListsChange) -> usize {
        let (stored, changed) = self.of(owner, change);
        let unchanged = stored.grace.iter().filter(|(id, _)| !changed.contains_key(id));
        let changed = changed.values().filter_map(|change| change.after?.grace_until);
        unchanged.map(|(_, until)| *until).chain(changed).filter(|until| *until > now).count()
    }

    /// What the lists lack of a token.
    pub(super) fn missing(&self, digest: &Digest, token: &TokenHead<'_>) -> Option<String> {
        let TokenHead { id, owner, .. } = token;
        let none = OwnerTokens::default();
        let owner_tokens = self.owners.get(*owner).unwrap_or(&none);
        let named = |name| owner_tokens.names.binary_search(&(name, *id)).is_ok();
        if self.stored_digest(*id).as_ref() != Some(digest) {
            Some(format!("the id {id} leads to another token"))
        } else if owner_tokens.ids.binary_search(id).is_err() {
            Some(format!("the token {id} is not in the list of its owner {owner}"))
        } else if Entry::of(token).name.is_some_and(|name| !named(name)) {
            Some(format!("the name of the token {id} does not lead to it"))
        } else {
            None
        }
    }

    pub(super) fn apply(&mut self, change: &TokenListsChange) {
        for (id, digest) in &change.digests {
            match digest {
                None if self.loaded_digest(*id).is_none() => self.changed.remove(id),
                digest => self.changed.insert(*id, *digest),
            };
        }
        for (owner, changed) in &change.owners {
            owned(&mut self.owners, owner).apply(changed);
        }
    }

    fn of<'a>(
        &'a self,
        owner: &str,
        change: &'a TokenListsChange,
    ) -> (&'a OwnerTokens, &'a OwnerTokensChange) {
        static NONE: OwnerTokens = OwnerTokens { ids: Vec::new(), names: Vec::new(), grace: Vec::new() };
        static UNCHANGED: OwnerTokensChange = BTreeMap::new();
        (self.owners.get(owner).unwrap_or(&NONE), change.owners.get(owner).unwrap_or(&UNCHANGED))
    }
}

impl OwnerTokens {
    fn counts(&self) -> Counts {
        Counts { all: self.ids.len(), ended: self.ids.len() - self.names.len() }
    }

    fn apply(&mut self, changed: &OwnerTokensChange) {
        let entries = || changed.iter().map(|(id, EntryChange { before, after })| (*id, *before, *after));
        let removed = entries().filter(|(_, before, after)| before.is_some() && after.is_none());
        let added = entries().filter(|(_, before, after)| before.is_none() && after.is_some());
        edit(&mut self.ids, removed.map(|(id, ..)| id).collect(), added.map(|(id, ..)| id).collect());

        let renamed = || {
            let names = entries()
                .map(|(id, before, after)| (id, before.and_then(|e| e.name), after.and_then(|e| e.name)));
            names.filter(|(_, before, after)| before != after)
        };
        let removed = renamed().filter_map(|(id, before, _)| Some((before?, id)));
        let added = renamed().filter_map(|(id, _, after)| Some((after?, id)));
        edit(&mut self.names, removed.collect(), added.collect());

        let in_grace = |entry: Option<Entry>| entry.and_then(|entry| entry.grace_until);
        for (id, _, after) in entries().filter(|(_, before, after)| in_grace(*before) != in_grace(*after)) {
            self.grace.retain(|(other, _)| *other != id);
            self.grace.extend(in_grace(after).map(|until| (id, until)));
        }
    }
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

/// `entry` would copy the owner each time.
fn owned<'a, T: Default>(owners: &'a mut HashMap<String, T>, owner: &str) -> &'a mut T {
    if !owners.contains_key(owner) {
        owners.insert(owner.to_owned(), T::default());
    }
    owners.get_mut(owner).expect("it was just inserted")
}
