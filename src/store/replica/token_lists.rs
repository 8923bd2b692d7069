//! Finds tokens by id, by owner and by name. These lists are not in sled, where they would take two more rows
//! for each token: they are derived from the tokens' rows when those are loaded.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
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
    settings::ExchangeRule,
    store::record::TokenHead,
};

mod owner;

use owner::{OwnerTokens, difference, is_ended};

/// How many tokens an owner has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub all: usize,
    /// Tokens that were revoked or replaced.
    pub ended: usize,
}

/// A token's id, and where its row is.
pub(super) type TokenRef = (TokenId, DigestPrefix);

/// The first bytes of a token's digest. The row's key has the rest, which would be half of the lists' memory.
pub(super) type DigestPrefix = [u8; 8];

#[derive(Default)]
pub(super) struct TokenLists {
    /// Sorted. A tree would take half as much memory again.
    ids: Vec<TokenRef>,
    /// What has changed since `ids` was made; `None`: the token was dropped.
    changed: BTreeMap<TokenId, Option<DigestPrefix>>,
    owners: HashMap<String, OwnerTokens>,
}

/// The name of a token that has not ended. Exchanged tokens take no name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    hash: NameHash,
    id: TokenId,
    expires_at: Timestamp,
}

/// A hash of an owner and a folded name: short, so two may share it. Its key differs in every process, so nobody
/// can choose names that do.
type NameHash = u32;

fn name_hash(owner: &str, folded: &str) -> NameHash {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    KEY.hash_one((owner, folded)) as NameHash
}

/// What the lists have of a token.
#[derive(Clone, Copy)]
struct Entry {
    ended: bool,
    name: Option<Name>,
    grace_until: Option<Timestamp>,
}

impl Entry {
    fn of(token: &TokenHead<'_>) -> Self {
        let ended = token.is_ended();
        let named = !ended && !token.author.is_some_and(ExchangeRule::is_author);
        let name = named.then(|| Name {
            hash: name_hash(token.owner, &fold(token.name)),
            id: token.id,
            expires_at: token.expires_at.unwrap_or(Timestamp::from_millis(i64::MAX)),
        });
        Self { ended, name, grace_until: token.grace_until() }
    }
}

/// How a batch changes the lists.
#[derive(Default)]
pub(super) struct TokenListsChange {
    /// `None`: the token is dropped.
    ids: BTreeMap<TokenId, Option<DigestPrefix>>,
    owners: HashMap<String, OwnerTokensChange>,
    /// The tokens that have, or had in the course of the batch, a name with this hash: one owner may get very
    /// many tokens in one batch.
    named: BTreeSet<(NameHash, TokenId)>,
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
            self.ids.insert(token.id, after.map(|_| prefix(digest)));
        }
        let after = after.map(Entry::of);
        if let Some(name) = after.and_then(|after| after.name) {
            self.named.insert((name.hash, token.id));
        }
        of_owner(&mut self.owners, token.owner, |changed: &mut OwnerTokensChange| {
            let change = changed
                .entry(token.id)
                .or_insert_with(|| EntryChange { before: before.map(Entry::of), after });
            change.after = after;
        });
    }
}

impl TokenLists {
    /// For about so many tokens.
    pub(super) fn with_capacity(tokens: usize) -> Self {
        Self { ids: Vec::with_capacity(tokens), ..Self::default() }
    }

    /// Loads a token. [`TokenLists::finish_load`] must follow.
    pub(super) fn load(&mut self, digest: &Digest, token: &TokenHead<'_>) {
        self.ids.push((token.id, prefix(digest)));
        let Entry { ended, name, grace_until } = Entry::of(token);
        of_owner(&mut self.owners, token.owner, |owner_tokens: &mut OwnerTokens| {
            owner_tokens.unnamed.extend(name.is_none().then_some(token.id));
            owner_tokens.names.extend(name);
            owner_tokens.ended += usize::from(ended);
            owner_tokens.grace.extend(grace_until.map(|until| (token.id, until)));
        });
    }

    pub(super) fn finish_load(&mut self) -> Result<(), ReplicaError> {
        for owner_tokens in self.owners.values_mut() {
            owner_tokens.names.sort_unstable();
            owner_tokens.names.shrink_to_fit();
            owner_tokens.unnamed.sort_unstable();
            owner_tokens.unnamed.shrink_to_fit();
        }
        self.ids.sort_unstable();
        if self.ids.is_sorted_by(|a, b| a.0 < b.0) { Ok(()) } else { Err(ReplicaError::Ids) }
    }

    /// As a batch leaves it. `None`: there is no such token.
    pub(super) fn token_ref(&self, id: TokenId, change: &TokenListsChange) -> Option<TokenRef> {
        let changed = change.ids.get(&id).map(|prefix| Some((id, (*prefix)?)));
        changed.unwrap_or_else(|| self.stored_ref(id))
    }

    fn stored_ref(&self, id: TokenId) -> Option<TokenRef> {
        let changed = self.changed.get(&id).map(|prefix| Some((id, (*prefix)?)));
        changed.unwrap_or_else(|| {
            let at = self.ids.binary_search_by_key(&id, |(id, _)| *id).ok()?;
            Some(self.ids[at])
        })
    }

    /// Up to `limit` tokens after `after`, in the order of ids.
    pub(super) fn page(&self, after: Option<TokenId>, limit: usize) -> Vec<TokenRef> {
        let from = after.map_or(0, |after| self.ids.partition_point(|(id, _)| *id <= after));
        let mut unchanged = self.ids[from..].iter().copied().peekable();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut tokens = Vec::new();
        for (id, prefix) in self.changed.range((from, Bound::Unbounded)) {
            while tokens.len() < limit
                && let Some(token) = unchanged.next_if(|(other, _)| other < id)
            {
                tokens.push(token);
            }
            if tokens.len() >= limit {
                return tokens;
            }
            unchanged.next_if(|(other, _)| other == id);
            tokens.extend(prefix.map(|prefix| (*id, prefix)));
        }
        let left = limit - tokens.len();
        tokens.extend(unchanged.take(left));
        tokens
    }

    /// The same for one owner.
    pub(super) fn page_of(&self, owner: &str, after: Option<TokenId>, limit: usize) -> Vec<TokenRef> {
        let all = self.owners.get(owner).into_iter().flat_map(OwnerTokens::ids);
        let mut ids = Vec::new();
        for id in all.filter(|id| after.is_none_or(|after| *id > after)) {
            ids.push(id);
            // One owner may have very many.
            if ids.len() > limit.saturating_mul(2) {
                ids.select_nth_unstable(limit);
                ids.truncate(limit);
            }
        }
        ids.sort_unstable();
        ids.truncate(limit);
        ids.into_iter().filter_map(|id| self.stored_ref(id)).collect()
    }

    /// All tokens of an owner.
    pub(super) fn refs_of(&self, owner: &str, change: &TokenListsChange) -> Vec<TokenRef> {
        let (stored, changed) = self.of(owner, change);
        let unchanged = stored.ids().filter(|id| !changed.contains_key(id));
        unchanged.chain(changed.keys().copied()).filter_map(|id| self.token_ref(id, change)).collect()
    }

    /// The owner's live tokens that may have the folded name.
    pub(super) fn refs_named(
        &self,
        owner: &str,
        name: &str,
        now: Timestamp,
        change: &TokenListsChange,
    ) -> Vec<TokenRef> {
        let hash = name_hash(owner, name);
        let (OwnerTokens { names, .. }, changed) = self.of(owner, change);
        let from = names.partition_point(|name| name.hash < hash);
        let names = names[from..].iter().take_while(|name| name.hash == hash);
        let renamed = change.named.range((hash, TokenId::FIRST)..).take_while(|(other, _)| *other == hash);
        let renamed = renamed.filter_map(|(_, id)| changed.get(id));
        let named = live(names, changed, renamed, now).filter(|name| name.hash == hash);
        named.filter_map(|name| self.token_ref(name.id, change)).collect()
    }

    /// The owner's live tokens that have a name.
    pub(super) fn live<'a>(
        &'a self,
        owner: &str,
        now: Timestamp,
        change: &'a TokenListsChange,
    ) -> impl Iterator<Item = TokenId> {
        let (OwnerTokens { names, .. }, changed) = self.of(owner, change);
        live(names.iter(), changed, changed.values(), now).map(|name| name.id)
    }

    pub(super) fn counts(&self, owner: &str, change: &TokenListsChange) -> Counts {
        let (stored, changed) = self.of(owner, change);
        let all = |entry: &Option<Entry>| isize::from(entry.is_some());
        Counts {
            all: stored.len().saturating_add_signed(difference(changed, all)),
            ended: stored.ended.saturating_add_signed(difference(changed, is_ended)),
        }
    }

    /// How many of the owner's tokens have a name, expired ones included.
    pub(super) fn named(&self, owner: &str, change: &TokenListsChange) -> usize {
        let (stored, changed) = self.of(owner, change);
        let named = |entry: &Option<Entry>| isize::from(entry.is_some_and(|entry| entry.name.is_some()));
        stored.names.len().saturating_add_signed(difference(changed, named))
    }

    /// The counts of all owners.
    pub(super) fn all_counts(&self) -> HashMap<String, Counts> {
        let counts = |owner: &OwnerTokens| Counts { all: owner.len(), ended: owner.ended };
        self.owners.iter().map(|(owner, owner_tokens)| (owner.clone(), counts(owner_tokens))).collect()
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
        let listed = self.owners.get(*owner).unwrap_or(&none);
        let Entry { name, grace_until, .. } = Entry::of(token);
        let found =
            name.map_or_else(|| listed.unnamed.binary_search(id), |name| listed.names.binary_search(&name));
        if self.stored_ref(*id) != Some((*id, prefix(digest))) {
            Some(format!("the id {id} leads to another token"))
        } else if found.is_err() && name.is_some() && listed.ids().any(|other| other == *id) {
            Some(format!("the name of the token {id} does not lead to it"))
        } else if found.is_err() {
            Some(format!("the token {id} is not in the list of its owner {owner}"))
        } else if grace_until.is_some_and(|until| !listed.grace.contains(&(*id, until))) {
            Some(format!("the grace period of the token {id} is not listed"))
        } else {
            None
        }
    }

    pub(super) fn apply(&mut self, change: &TokenListsChange) {
        self.changed.extend(&change.ids);
        // Rarely enough to cost little, often enough that what was dropped does not add up.
        if self.changed.len() > MIN_MERGED.max(self.ids.len() / 4) {
            let changed = std::mem::take(&mut self.changed);
            let mut ids = changed.keys().peekable();
            self.ids.retain(|(id, _)| {
                while ids.next_if(|changed| *changed < id).is_some() {}
                ids.peek() != Some(&id)
            });
            self.ids.extend(changed.into_iter().filter_map(|(id, prefix)| Some((id, prefix?))));
            // A stable sort merges two sorted runs.
            self.ids.sort();
        }
        for (owner, changed) in &change.owners {
            of_owner(&mut self.owners, owner, |owner_tokens: &mut OwnerTokens| owner_tokens.apply(changed));
        }
    }

    fn of<'a>(
        &'a self,
        owner: &str,
        change: &'a TokenListsChange,
    ) -> (&'a OwnerTokens, &'a OwnerTokensChange) {
        static NONE: OwnerTokens =
            OwnerTokens { names: Vec::new(), unnamed: Vec::new(), ended: 0, grace: Vec::new() };
        static UNCHANGED: OwnerTokensChange = BTreeMap::new();
        (self.owners.get(owner).unwrap_or(&NONE), change.owners.get(owner).unwrap_or(&UNCHANGED))
    }
}

/// Fewer changes are not merged into the list of ids. In tests, the conformance suite has more.
const MIN_MERGED: usize = if cfg!(test) { 100 } else { 10_000 };

/// Which of an owner's `names` are live, and the live names that `changes` of the batch leave.
fn live<'a>(
    names: impl Iterator<Item = &'a Name>,
    changed: &'a OwnerTokensChange,
    changes: impl Iterator<Item = &'a EntryChange>,
    now: Timestamp,
) -> impl Iterator<Item = &'a Name> {
    let unchanged = names.filter(|name| !changed.contains_key(&name.id));
    let changed = changes.filter_map(|change| change.after.as_ref()?.name.as_ref());
    unchanged.chain(changed).filter(move |name| name.expires_at > now)
}

pub(super) fn prefix(digest: &Digest) -> DigestPrefix {
    *digest.as_bytes().first_chunk().expect("a digest is longer")
}

/// Changes what is stored for an owner. `entry` would copy the owner each time.
pub(super) fn of_owner<T: Default>(
    owners: &mut HashMap<String, T>,
    owner: &str,
    change: impl FnOnce(&mut T),
) {
    if let Some(present) = owners.get_mut(owner) {
        change(present);
        return;
    }
    let mut new = T::default();
    change(&mut new);
    owners.insert(owner.to_owned(), new);
}
